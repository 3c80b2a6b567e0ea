"""Orders the starts of processes: first those that a call waits for, then those ahead of calls."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Slots:
    """Slots for starts: ``most`` at once. Starts ahead of calls may only use the first ``most_ahead``.

    Work ahead begins when fewer than that many starts of any kind run and no call waits for a place.
    """

    def __init__(self, most: int, most_ahead: int) -> None:
        self._most, self._most_ahead = most, min(most, most_ahead)
        self._running = 0
        self._calls: deque[asyncio.Future[None]] = deque()
        self._ahead: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def taken(self, *, ahead: bool, timeout: float) -> AsyncIterator[None]:
        """Hold a slot within the block, for at most ``timeout`` seconds: a start that hangs must not block others."""
        await self._acquire(self._ahead if ahead else self._calls)
        freed = False

        def free() -> None:
            nonlocal freed
            if not freed:
                freed = True
                self._release()

        timer = asyncio.get_running_loop().call_later(timeout, free)
        try:
            yield
        finally:
            timer.cancel()
            free()

    async def _acquire(self, queue: deque[asyncio.Future[None]]) -> None:
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):
                    queue.remove(turn)
                self._serve()  # work ahead may have waited only because of this call
            else:  # it was our turn, and nobody will use it
                self._release()
            raise

    def _release(self) -> None:
        self._running -= 1
        self._serve()

    def _serve(self) -> None:
        for queue, most in ((self._calls, self._most), (self._ahead, self._most_ahead)):
            while queue and self._running < most:
                turn = queue.popleft()
                if not turn.done():
                    self._running += 1
                    turn.set_result(None)
            if queue:
                return
