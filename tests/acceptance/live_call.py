"""A call that goes on beside whatever a test does to its worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.harness import WAIT, Cluster

PACE = 0.05
"""How long (s) the agent thinks before it asks again; without it, it would keep a core busy."""


class LiveCall:
    """A call with one session, whose agent asks all the time."""

    def __init__(self, mcp: Cluster) -> None:
        self._mcp = mcp
        self._answered = 0
        self._news = asyncio.Event()

    async def run(self) -> None:
        while True:
            asked = f"are you there, {self._answered}"
            answer = await self._mcp.client.call_tool("live", "echo", {"text": asked}, timeout=45)
            assert asked in answer.text
            self._answered += 1
            self._news.set()
            await asyncio.sleep(PACE)

    async def undisturbed(self) -> None:
        """See that it is answered, and that no link was lost for whatever came meanwhile, in a defect or not."""
        before = self._answered
        async with asyncio.timeout(WAIT):
            while self._answered < before + 3:
                self._news.clear()
                await self._news.wait()
        assert (await self._mcp.client.get("live")).is_alive
        for told in ("broker.lost", "broker.reconnecting", "delivery.defect"):
            assert not self._mcp.logged(told), self._mcp.logged(told)[:3]


@asynccontextmanager
async def live_call(mcp: Cluster) -> AsyncIterator[LiveCall]:
    """A worker with such a call; one that was not answered once fails the test."""
    await mcp.start()
    await mcp.client.create("live", "echo")
    call = LiveCall(mcp)
    running = asyncio.create_task(call.run(), name="live-call")
    try:
        yield call
        assert not running.done(), running.exception()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
