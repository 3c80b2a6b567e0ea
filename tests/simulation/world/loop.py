"""An event loop for many processes on one virtual clock, whose turns a seed decides.

Each simulated process has a queue of its own, in which everything comes in order, as in an event loop of its own. Which
process goes next is drawn. Time passes only when nobody has anything to do. A process may be frozen, and go on later,
or killed: then nothing of it ever runs again, no ``finally`` either.
"""

# mypy: disable-error-code="override, attr-defined"
# It is written for what this project asks of a loop, below what asyncio declares of its own.

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

EPOCH = 1_800_000_000.0
"""The wall clock (s since the epoch) at the beginning of the world."""

_numbers = itertools.count(1)


def _number() -> int:
    return next(_numbers)


class SimulatedTask(asyncio.Task):
    """A task with a hash that is the same in each run, for sets of tasks have to have an order."""

    def __new__(cls, *_: Any, **__: Any) -> "SimulatedTask":
        made = super().__new__(cls)
        made.number = _number()
        return made

    number: int

    def __hash__(self) -> int:
        return self.number


class SimulatedFuture(asyncio.Future):
    """A future with a hash that is the same in each run."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        self.number = _number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class Process:
    """A simulated process: what it has to do, whether it runs, and how wrong its wall clock is (s)."""

    def __init__(self, name: str, skew: float = 0.0) -> None:
        self.name = name
        self.skew = skew
        self.ready: deque[Any] = deque()
        self.frozen = False
        self.dead = False
        self.listed = False
        self.tasks: dict[asyncio.Task[Any], None] = {}
        """Of a killed one: held, so that no ``finally`` of theirs runs while the world goes on."""

    def __repr__(self) -> str:
        return self.name


class Deadlock(Exception):
    """Nobody has anything to do, and nobody waits for a moment."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop; also the ``Timing`` of the simulated broker."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        global _numbers  # noqa: PLW0603 - the same numbers in each world
        _numbers = itertools.count(1)
        self._drawn = chance.random
        self._now = 1000.0
        self._timers: list[tuple[float, int, Process, Any]] = []
        self._serial = 0
        self.world = Process("world")
        self.current = self.world
        self._runnable: list[Process] = []
        self.steps = 0

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        process = self.current
        process.ready.append(handle)
        if not process.listed:
            self._list(process)
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._serial += 1
        heapq.heappush(self._timers, (when, self._serial, self.current, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when it is due."""

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> Any:
        task = SimulatedTask(coro, loop=self, name=name, context=context)
        process = self.current
        process.tasks[task] = None
        task.add_done_callback(process.tasks.pop)
        return task

    def create_future(self) -> Any:
        return SimulatedFuture(loop=self)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Threads only look after the host's disk here, and there is none in this world."""
        done = self.create_future()
        done.set_result(None)
        return done

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is nobody else."""

    # Timing of the broker.

    def now(self) -> float:
        return self._now

    def at(self, when: float, owner: Process | None, callback: Callable[..., Any], *args: Any) -> None:
        self._serial += 1
        heapq.heappush(self._timers, (when, self._serial, owner or self.world, (callback, args)))

    def owner(self) -> Process:
        return self.current

    # Turns.

    def _list(self, process: Process) -> None:
        if not (process.listed or process.frozen or process.dead):
            process.listed = True
            self._runnable.append(process)

    def freeze(self, process: Process) -> None:
        """Nothing of the process runs until it is thawed; what comes for it waits."""
        process.frozen = True
        self._unlist(process)

    def thaw(self, process: Process) -> None:
        """It goes on: its timers that are due come first, as an event loop has it, then what was sent to it."""
        process.frozen = False
        due = [one for one in process.ready if isinstance(one, asyncio.TimerHandle)]
        rest = [one for one in process.ready if not isinstance(one, asyncio.TimerHandle)]
        process.ready = deque([*due, *rest])
        if process.ready:
            self._list(process)

    def kill(self, process: Process) -> None:
        """Nothing of the process ever runs again."""
        process.dead = True
        process.ready.clear()
        self._unlist(process)
        for task in process.tasks:
            task._log_destroy_pending = False

    def _unlist(self, process: Process) -> None:
        if process.listed:
            process.listed = False
            self._runnable.remove(process)

    def _run_once(self) -> None:
        runnable, drawn = self._runnable, self._drawn
        while not self._stopping:
            count = len(runnable)
            if not count:
                self._pass_time()
                continue
            process = runnable[0] if count == 1 else runnable[int(drawn() * count)]
            entry = process.ready.popleft()
            if not process.ready:
                process.listed = False
                runnable.remove(process)
            self.current = process
            self.steps += 1
            if type(entry) is tuple:
                entry[0](*entry[1])
            elif not entry._cancelled:
                entry._run()
        self.current = self.world

    def _pass_time(self) -> None:
        timers = self._timers
        if not timers:
            raise Deadlock
        when = timers[0][0]
        self._now = max(self._now, when)
        while timers and timers[0][0] <= self._now:
            _, _, process, entry = heapq.heappop(timers)
            if process.dead or (type(entry) is not tuple and entry._cancelled):
                continue
            process.ready.append(entry)
            if not process.listed:
                self._list(process)
