"""Operations that wait for a link, and fail when it is lost."""

import asyncio
from types import TracebackType


class Pending:
    """The operations that wait for a connection of a link. They fail when the link is lost.

    aiormq sends through a queue of ten frames. If the connection is lost while this queue is full, its writer ends too.
    An acknowledgement or a reply that waits for room would then wait for ever, and so would its call.
    """

    def __init__(self, lost: "asyncio.Future[str]") -> None:
        self._lost = lost
        self._bounds: set[asyncio.Timeout] = set()
        lost.add_done_callback(self._give_up)

    @property
    def over(self) -> bool:
        """Return whether the link is lost."""
        return self._lost.done()

    def bounded(self, seconds: float | None = None) -> "_BoundedWait":
        """End waits within this block when the link is lost, or after ``seconds`` with TimeoutError."""
        return _BoundedWait(self._bounds, asyncio.timeout(0 if self._lost.done() else seconds))

    def _give_up(self, _: "asyncio.Future[str]") -> None:
        now = asyncio.get_running_loop().time()
        for bound in self._bounds:
            if not bound.expired():
                bound.reschedule(now)


class _BoundedWait:
    """A time limit that other code can see while it holds. It is no generator, because each message passes several."""

    __slots__ = ("_bound", "_bounds")

    def __init__(self, bounds: set[asyncio.Timeout], bound: asyncio.Timeout) -> None:
        self._bounds = bounds
        self._bound = bound

    async def __aenter__(self) -> None:
        await self._bound.__aenter__()
        self._bounds.add(self._bound)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bounds.discard(self._bound)
        await self._bound.__aexit__(kind, error, traceback)  # it raises, or lets pass what is raised
