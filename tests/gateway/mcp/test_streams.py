"""A thousand streams that are open at one gateway."""

import asyncio
import base64
import json
import sys

import pytest

from tests.gateway.conftest import PASSWORD, USER
from tests.gateway.mcp.processes import GatewayProcess, gateway_process
from tests.gateway.mcp.test_messages import ECHO
from tests.gateway.mcp.wire import call, modern
from tests.harness import Cluster

STREAMS = 1_000
AT_ONCE = 50
MOST_BYTES = 100_000
"""What one stream may cost; it is printed what it does cost."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def opened(gateway: GatewayProcess, turns: asyncio.Semaphore) -> Stream:
    """A stream that listens, once it is acknowledged; by hand, since a client would cost more than the gateway."""
    body, headers = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    sent = json.dumps(body).encode()
    headers |= {"host": "localhost", "content-type": "application/json", "content-length": str(len(sent))}
    headers["authorization"] = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    async with turns:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"POST {ECHO} HTTP/1.1\r\n{lines}\r\n".encode() + sent)
        await reader.readuntil(b"notifications/subscriptions/acknowledged")
    return reader, writer


@pytest.mark.timeout(180)
async def test_a_thousand_streams_cost_little_and_hear_of_a_change_each(
    mcp: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    await mcp.start()
    gateway = await gateway_process(mcp)
    streams: list[Stream] = []
    async with gateway.client() as http:
        await call(http, ECHO, "echo", text="up")
        turns = asyncio.Semaphore(AT_ONCE)
        streams += [await opened(gateway, turns)]
        before = gateway.memory
        try:
            streams += await asyncio.gather(*(opened(gateway, turns) for _ in range(STREAMS)))
            each = (gateway.memory - before) / STREAMS
            with capsys.disabled():
                sys.stdout.write(f"\n{STREAMS} open streams on one gateway: {each / 1000:.1f} kB each\n")
            assert each < MOST_BYTES
            await call(http, ECHO, "add_tool", name="more")  # and other requests are answered meanwhile
            async with asyncio.timeout(30):
                await asyncio.gather(*(reader.readuntil(b"tools/list_changed") for reader, _ in streams))
        finally:
            for _, writer in streams:
                writer.close()
