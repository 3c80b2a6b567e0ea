"""An event loop for many processes on one virtual clock, whose turns a seed decides.

Each simulated process has a queue of its own, in which everything comes in order, as in an event loop of its own. Which
process goes next is drawn. Time passes only when nobody has anything to do. A process may be frozen, and go on later,
or killed: then nothing of it ever runs again, no ``finally`` either.
"""

# mypy: disable-error-code="override, attr-defined"
# It is written for what this project asks of a loop, below what asyncio declares of its own.

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from heapq import heappop, heappush
from typing import Any

EPOCH = 1_800_000_000.0
"""The wall clock (s since the epoch) at the beginning of the world."""

BEGINNING = 1000.0
"""The loop's clock (s) at the beginning of the world."""

MANY = 500
"""How many tasks of a process are looked through, at least, for those that are done."""

_numbers = itertools.count(1)


class SimulatedTask(asyncio.Task):
    """A task with a hash that is the same in each run, for sets of tasks have to have an order."""

    __slots__ = ("_number",)
    _number: int

    def __hash__(self) -> int:
        try:
            return self._number
        except AttributeError:
            self._number = next(_numbers)
            return self._number


class SimulatedFuture(asyncio.Future):
    """A future with a hash that is the same in each run."""

    __slots__ = ("_number",)
    _number: int

    def __hash__(self) -> int:
        try:
            return self._number
        except AttributeError:
            self._number = next(_numbers)
            return self._number


class Entry(list):
    """What is to be called: callback, arguments, context. A list, because nothing is made faster that can be changed.

    It is what asyncio calls a handle; without a callback it is cancelled.
    """

    __slots__ = ()

    def cancel(self) -> None:
        self[0] = None

    def cancelled(self) -> bool:
        return self[0] is None


class Timer(Entry):
    """What is to be called at a moment, which is its fourth."""

    __slots__ = ()

    def when(self) -> float:
        return float(self[3])


class Process:
    """A simulated process: what it has to do, whether it runs, and how wrong its wall clock is (s)."""

    def __init__(self, name: str, skew: float = 0.0) -> None:
        self.name = name
        self.skew = skew
        self.ready: deque[Any] = deque()
        self.frozen = False
        self.dead = False
        self.listed = False
        self.tasks: list[SimulatedTask] = []
        """The tasks that it has begun; of those that are done, some. They are held until they are done, and those of a
        killed process for good: no ``finally`` of theirs may run."""
        self.most = MANY

    def __repr__(self) -> str:
        return self.name

    def let_go(self) -> None:
        """Hold those tasks only that are not done."""
        self.tasks[:] = [one for one in self.tasks if not one.done()]
        self.most = MANY + 2 * len(self.tasks)

    def forget(self) -> None:
        """Let go of everything; the world is over."""
        self.ready.clear()
        self.tasks.clear()


class Deadlock(Exception):
    """Nobody has anything to do, and nobody waits for a moment."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop; also the ``Timing`` of the simulated broker."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        global _numbers  # noqa: PLW0603 - the same numbers in each world
        _numbers = itertools.count(1)
        self._drawn = chance.random
        self._now = BEGINNING
        self._timers: list[tuple[float, int, Process, Any]] = []
        self._serial = 0
        self.world = Process("world")
        self.current = self.world
        self._runnable: list[Process] = []
        self.steps = 0

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        entry = Entry((callback, args, copy_context() if context is None else context))
        process = self.current
        process.ready.append(entry)
        if not (process.listed or process.frozen or process.dead):
            process.listed = True
            self._runnable.append(process)
        return entry

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        entry = Timer((callback, args, copy_context() if context is None else context, when))
        self._serial += 1
        heappush(self._timers, (when, self._serial, self.current, entry))
        return entry

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> Any:
        task = SimulatedTask(coro, loop=self, name=name, context=context)
        process = self.current
        tasks = process.tasks
        tasks.append(task)
        if len(tasks) > process.most:
            process.let_go()
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

    def get_debug(self) -> bool:
        return False

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        """None is closed at the end of the world."""

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Nor when nobody has it any more: its process was killed."""

    # Timing of the broker.

    def now(self) -> float:
        return self._now

    def at(self, when: float, owner: Process | None, callback: Callable[..., Any], *args: Any) -> None:
        self._serial += 1
        heappush(self._timers, (when, self._serial, owner or self.world, (callback, args)))

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
        due = [one for one in process.ready if isinstance(one, Timer)]
        rest = [one for one in process.ready if not isinstance(one, Timer)]
        process.ready = deque([*due, *rest])
        if process.ready:
            self._list(process)

    def kill(self, process: Process) -> None:
        """Nothing of the process ever runs again."""
        process.dead = True
        process.ready.clear()
        self._unlist(process)

    def _unlist(self, process: Process) -> None:
        if process.listed:
            process.listed = False
            self._runnable.remove(process)

    def _run_once(self) -> None:
        runnable, drawn = self._runnable, self._drawn
        steps = self.steps
        while not self._stopping:
            count = len(runnable)
            if count > 1:
                process = runnable[int(drawn() * count)]
            elif count:
                process = runnable[0]
            else:
                self._pass_time()
                continue
            ready = process.ready
            entry = ready.popleft()
            if not ready:
                process.listed = False
                if count > 1:
                    runnable.remove(process)
                else:
                    runnable.clear()
            self.current = process
            steps += 1
            callback = entry[0]
            try:
                if len(entry) == 2:
                    callback(*entry[1])
                elif callback is not None:
                    entry[2].run(callback, *entry[1])
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as a loop has it: others go on
                self.call_exception_handler({"message": f"in {callback}", "exception": error})
        self.steps = steps
        self.current = self.world

    def _pass_time(self) -> None:
        """Let time pass until somebody has something to do."""
        timers, runnable = self._timers, self._runnable
        while not runnable:
            if not timers:
                raise Deadlock
            now = self._now = max(self._now, timers[0][0])
            while timers and timers[0][0] <= now:
                _, _, process, entry = heappop(timers)
                if process.dead or entry[0] is None:
                    continue
                process.ready.append(entry)
                if not (process.listed or process.frozen):
                    process.listed = True
                    runnable.append(process)
