"""Starts processes, each in its own task, so that a shutdown can cancel them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic

from consumer.sessions.session import P
from consumer.sessions.stops import Stops
from schemas.errors import ShuttingDown, StartFailed
from schemas.ids import SessionId

logger = logging.getLogger(__name__)


class Starts(Generic[P]):
    """Runs starts. A process that no session took goes to ``stops``."""

    def __init__(self, stops: Stops) -> None:
        self._stops = stops
        self._tasks: set[asyncio.Task[P]] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self._called_off = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def pending(self) -> set[asyncio.Future[Any]]:
        """The running starts. When they have ended, every process is claimed or in ``stops``."""
        return {*self._tasks, *self._waiting}

    def call_off(self) -> None:
        """Cancel all starts for good: ``run`` raises ShuttingDown, whatever their result. Idempotent."""
        self._called_off = True
        for task in self._tasks:
            _cancel_once(task)

    async def run(self, session_id: SessionId, start: Callable[[], Awaitable[P]]) -> P:
        """Return the process from ``start``. Cancelling this cancels ``start``, and waits until it has ended."""
        # The task is done a moment before its waiter goes on. This covers the moment: until then we are pending.
        claim: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(claim)
        try:
            return await self._run(session_id, start)
        finally:
            self._waiting.discard(claim)
            claim.set_result(None)

    async def _run(self, session_id: SessionId, start: Callable[[], Awaitable[P]]) -> P:
        async def run() -> P:
            return await start()

        task = asyncio.create_task(run(), name=f"session-start {session_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # A callback, because cancelled once more while we wait here, we are gone before the start has ended.
            task.add_done_callback(partial(self._stop_unclaimed, session_id))
            _cancel_once(task)
            await asyncio.wait({task})
            raise
        if self._called_off:
            self._stop_unclaimed(session_id, task)
            raise ShuttingDown("the worker is shutting down and cancelled the start")
        if task.cancelled():
            # CancelledError tells our caller that it is cancelled, which it is not.
            raise StartFailed("the start of the MCP server cancelled itself")
        return task.result()

    def _stop_unclaimed(self, session_id: SessionId, start: asyncio.Task[P]) -> None:
        if start.cancelled():
            return
        if (error := start.exception()) is not None:
            logger.info("session.start_called_off", extra={"session_id": session_id}, exc_info=error)
            return
        self._stops.begin(session_id, start.result())


def _cancel_once(task: asyncio.Task[Any]) -> None:
    # A second cancel would break into the clean-up that the first has started.
    if not task.cancelling():
        task.cancel()
