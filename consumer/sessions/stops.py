"""Stops processes, each in its own task, so that a slow one does not hold up others."""

import asyncio
import logging

from consumer.sessions.session import SessionProcess
from schemas.ids import SessionId

logger = logging.getLogger(__name__)


class Stops:
    """Holds the tasks that stop processes until they are done."""

    def __init__(self) -> None:
        self._tasks: dict[SessionId, set[asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._tasks.values()))

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The running tasks."""
        return {task for tasks in self._tasks.values() for task in tasks}

    def begin(self, session_id: SessionId, process: SessionProcess) -> None:
        """Begin to stop a process. An error of its ``stop`` is logged."""
        task = asyncio.create_task(_stop(session_id, process), name=f"session-stop {session_id}")
        self._tasks.setdefault(session_id, set()).add(task)
        task.add_done_callback(lambda done: self._forget(session_id, done))

    async def wait(self, session_id: SessionId) -> None:
        """Wait for the current stops of one session id. Cancelling the wait cancels no stop."""
        if tasks := self._tasks.get(session_id):
            await asyncio.wait(set(tasks))

    def _forget(self, session_id: SessionId, task: asyncio.Task[None]) -> None:
        tasks = self._tasks[session_id]
        tasks.discard(task)
        if not tasks:
            del self._tasks[session_id]


async def _stop(session_id: SessionId, process: SessionProcess) -> None:
    try:
        await process.stop()
    except Exception:
        logger.exception("session.stop_failed", extra={"session_id": session_id})
