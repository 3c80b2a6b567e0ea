"""Queues by key: work for one call runs one after the other, and work for different calls in parallel."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, TypeVar

import structlog

from consumer.concurrency.task_set import cancel_and_wait

log = structlog.get_logger(__name__)

Work = Callable[[], Awaitable[None]]

T = TypeVar("T")


class KeyedQueues:
    """Runs the work of each key on a lane, in the order in which it was submitted.

    A key without work has no lane and uses no memory.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lanes: dict[str, deque[tuple[str, Work]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._lanes)

    def submit(self, key: str, work: Work, *, tag: str = "") -> None:
        """Run ``work`` after all earlier work under ``key``. ``tag`` is for ``waiting``."""
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append((tag, work))
            return
        self._lanes[key] = lane = deque([(tag, work)])
        # An empty context: a lane works for many, and is not a part of the trace of who came first.
        task = asyncio.create_task(self._run(key, lane), name=f"{self._name}-lane", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, key: str, lane: deque[tuple[str, Work]]) -> None:
        try:
            while lane:
                _, work = lane.popleft()
                try:
                    await work()
                except Exception:  # a lane outlives a defect in what runs on it
                    log.exception("lane.defect", lane=self._name, key=key)
        finally:
            del self._lanes[key]

    def busy(self, key: str) -> bool:
        """Whether work of this key runs or waits."""
        return key in self._lanes

    def waiting(self, key: str) -> set[str]:
        """Return the tags of the work that waits behind the running one."""
        return {tag for tag, _ in self._lanes.get(key, ())}

    async def turn(self, key: str) -> None:
        """Wait until all earlier work under ``key`` is done. ``abandon`` cancels the wait."""
        if key not in self._lanes:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.add(reached)
        reached.add_done_callback(self._turns.discard)

        async def reach() -> None:
            if not reached.done():
                reached.set_result(None)

        self.submit(key, reach)
        await reached

    async def run(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """Run ``work`` at its turn, and return or raise its outcome. ``abandon`` cancels it.

        When the caller is cancelled, the work goes on: it may have begun.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._turns.add(done)
        done.add_done_callback(self._turns.discard)

        async def work_and_tell() -> None:
            try:
                result = await work()
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller raises it
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self.submit(key, work_and_tell)
        return await done

    async def drain(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until all lanes are idle. Return whether they are."""
        try:
            async with asyncio.timeout(timeout):
                while self._tasks:
                    await asyncio.wait(set(self._tasks))
        except TimeoutError:
            return False
        return True

    async def abandon(self) -> None:
        """Cancel all running and waiting work. Deliveries that it held stay unsettled."""
        for lane in self._lanes.values():
            lane.clear()
        for turn in list(self._turns):
            turn.cancel()
        await cancel_and_wait(*self._tasks)
