"""What waits for a link, and ends with it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Pending:
    """The operations that wait for a connection of a link: they are given up when the link is lost.

    aiormq sends through a queue of ten frames. When the connection goes while it is full, its writer goes as well, and
    whoever waits for room waits for ever: an acknowledgement, a reply, and the queue of the call that they belong to.
    """

    def __init__(self, lost: "asyncio.Future[str]") -> None:
        self._lost = lost
        self._bounds: set[asyncio.Timeout] = set()
        lost.add_done_callback(self._give_up)

    @property
    def over(self) -> bool:
        """Whether the link is lost: nothing goes through it any more."""
        return self._lost.done()

    @asynccontextmanager
    async def bounded(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Within this nothing waits longer than the link lives, nor than ``seconds``: then it raises TimeoutError."""
        async with asyncio.timeout(0 if self._lost.done() else seconds) as bound:
            self._bounds.add(bound)
            try:
                yield
            finally:
                self._bounds.discard(bound)

    def _give_up(self, _: "asyncio.Future[str]") -> None:
        now = asyncio.get_running_loop().time()
        for bound in self._bounds:
            if not bound.expired():
                bound.reschedule(now)
