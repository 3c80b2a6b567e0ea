"""A client that may not see who consumes asks the workers instead, as rarely as it can."""

import asyncio

import pytest

from tests.harness import Cluster


async def test_a_client_that_may_not_look_asks_once_for_all_requests_until_it_hears_nothing(
    mcp: Cluster, monkeypatch: pytest.MonkeyPatch
):
    await mcp.start()
    client, asked = mcp.client, 0
    await client.create("c-1", "echo")
    lookout, ask = client._connection.lookout, client._connection.lookout._ask

    async def counted(timeout: float) -> bool:
        nonlocal asked
        asked += 1
        return await ask(timeout)

    monkeypatch.setattr(lookout, "_ask", counted)
    monkeypatch.setattr("consumer.client.lookout.ANSWERED_FOR", 60.0)  # however slow this machine is
    lookout._cannot_look = client._connection._link
    for _ in range(2):
        asked, lookout.seen_until = 0, 0.0
        told = await asyncio.gather(*(client.call_tool("c-1", "echo", {"text": str(n)}) for n in range(5)))
        assert [one.text for one in told] == list("01234")
        assert asked == 1, "one question serves all that wait"
        for _ in range(5):
            await client.list_sessions()
        assert asked == 1, "each reply says that a worker is there"
