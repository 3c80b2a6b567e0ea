"""A broker that comes back without its data costs no session: the workers declare and bind everything again."""

import asyncio
import shutil

import pytest

from consumer.client import SessionClient
from infra.broker import find_server, private_broker
from schemas.errors import SessionsError
from tests.harness import START, cluster

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(find_server() is None, reason="needs a broker of its own, to empty its disk"),
]


async def answered(client: SessionClient, call: str) -> str:
    """What the counter of a call says, as soon as its worker has bound the call again."""
    async with asyncio.timeout(START):
        while True:
            try:
                return (await client.call_tool(call, "counter", timeout=2, idempotency_key="once")).text
            except SessionsError:
                await asyncio.sleep(0.1)


async def test_sessions_outlive_the_data_of_their_broker(prefix: str):
    with private_broker() as node:
        async with cluster(node.url, prefix) as mcp:
            for _ in range(2):
                await mcp.start()
            calls = [f"c-{number}" for number in range(4)]
            for call in calls:
                await mcp.client.create(call, "echo")
            node.kill()
            shutil.rmtree(node.home / "data")
            await asyncio.to_thread(node.start)
            assert [await answered(mcp.client, call) for call in calls] == ['{"count": 1}'] * 4
            # Their recipes are lost: a session goes on with another life, of which its worker tells.
            await mcp.until(lambda: {event.subject for event in mcp.of("created", restored=True)} == set(calls))
            await mcp.client.publish_call_event({"call_id": "c-0", "kind": "ended"})
            await mcp.event("closed", reason="call_ended")
