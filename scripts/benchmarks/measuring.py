"""How long something takes, what processes use of the machine, and waiting with a bound."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil

from scripts.benchmarks.report import Sample

KB = 1000

K = TypeVar("K", bound=str)
Timed = Callable[[int], Awaitable[float]]
"""Does something for a number, and returns how long (s) the part of it took that counts."""

Busy = Callable[[float, int], Awaitable[Sample]]
"""Calls for so many seconds with so many callers, and tells how long each call took."""


async def duration(work: Awaitable[Any]) -> float:
    """How long something takes (s)."""
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def in_turns(calls: "Mapping[K, Timed]", times: int, *, stretch: int = 1) -> dict[K, Sample]:
    """How long each of several things takes, ``stretch`` of one after the other's, so many of each.

    What is compared is measured side by side, so that whatever else a machine does meets all of it; every other round
    goes backwards, because what one leaves behind meets the next.
    """
    took: dict[K, list[float]] = {name: [] for name in calls}
    order = list(calls.items())
    for begin in range(0, times, stretch):
        order.reverse()
        for name, call in order:
            took[name] += [await call(number) for number in range(begin, min(begin + stretch, times))]
    return {name: Sample.of(seconds) for name, seconds in took.items()}


def timed(call: Callable[[int], Awaitable[Any]]) -> Timed:
    """The same, telling how long it took (s)."""
    return lambda number: duration(call(number))


async def at_once(call: Callable[[int], Awaitable[Any]], times: int) -> float:
    """How long (s) so many take together."""
    return await duration(asyncio.gather(*(call(number) for number in range(times))))


async def shared(call: Callable[[int], Awaitable[Any]], times: int, callers: int) -> tuple[float, Sample]:
    """How long (s) so many calls take that ``callers`` make one after the other, and how long each of them."""
    left = iter(range(times))
    took: list[float] = []

    async def caller() -> None:
        for number in left:
            took.append(await duration(call(number)))  # noqa: PERF401 - they are taken from one another

    whole = await duration(asyncio.gather(*(caller() for _ in range(callers))))
    return whole, Sample.of(took)


async def for_a_while(call: Callable[[int], Awaitable[Any]], seconds: float, callers: int) -> Sample:
    """How long (s) each of the calls takes that ``callers`` begin within ``seconds``, one after the other."""
    numbers = itertools.count()
    ends = time.perf_counter() + seconds
    took: list[float] = []

    async def caller() -> None:
        while time.perf_counter() < ends:
            took.append(await duration(call(next(numbers))))

    await asyncio.gather(*(caller() for _ in range(callers)))
    return Sample.of(took)


async def busy_in_turns(
    many: "Mapping[K, Busy]", seconds: float, callers: int, *, rounds: int
) -> dict[K, tuple[float, Sample]]:
    """Calls a second, and how long each took, when many callers call as fast as they are answered; in turns."""
    order = list(many.items())
    each: dict[K, list[float]] = {name: [] for name in many}
    for _ in range(rounds):
        order.reverse()  # what one leaves behind meets the next
        for name, busy in order:
            each[name] += (await busy(seconds, callers)).seconds
    # Each caller always waits for a call, so (Little's law):
    return {name: (callers / statistics.mean(took), Sample.of(took)) for name, took in each.items()}


async def processor_of(
    processes: Sequence[psutil.Process], call: Callable[[int], Awaitable[Any]], times: int, callers: int
) -> float:
    """Milliseconds of the processors that these processes use for a call, while many callers make so many."""
    before = processor_seconds(processes)
    await shared(call, times, callers)
    return (processor_seconds(processes) - before) / times * 1000


async def until(condition: Callable[[], Awaitable[bool]], what: str, *, within: float, pause: float) -> None:
    """Ask now and then until it is so; raises :class:`TimeoutError` that says what did not come."""
    deadline = time.monotonic() + within
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {within:g} s")
        await asyncio.sleep(pause)


def processor_seconds(processes: Iterable[psutil.Process]) -> float:
    """What processes have used of the processors so far."""
    times = [process.cpu_times() for process in processes]
    return sum(float(one.user + one.system) for one in times)


def machine_seconds() -> float:
    """What everything on this machine has used of its processors so far."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def brokers(url: str) -> list[psutil.Process]:
    """The node of RabbitMQ that listens on the port of ``url``, if it runs on this machine."""
    port = urlsplit(url).port or 5672
    return [
        process
        for process in psutil.process_iter(["name"])
        if process.info["name"] == "beam.smp" and port in _listened_on(process)
    ]


def _listened_on(process: psutil.Process) -> set[int]:
    """The TCP ports that a process listens on; none where it has ended or belongs to somebody else."""
    try:
        connections = process.net_connections("tcp")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return set()
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


def own_kb(process: psutil.Process) -> float:
    """Memory of a process that nobody shares (USS): what its end would give back."""
    return _rollup(process.pid, "Private_Clean", "Private_Dirty", "Private_Hugetlb")


def shared_kb(processes: Sequence[psutil.Process]) -> float:
    """Memory of processes, each page divided by the number of those that share it (PSS)."""
    return sum(_rollup(process.pid, "Pss") for process in processes)


def _rollup(pid: int, *names: str) -> float:
    """The sum of lines of ``/proc/<pid>/smaps_rollup``, in kilobytes of 1,000 bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {words[0].rstrip(":"): int(words[1]) for line in lines if (words := line.split())[-1] == "kB"}
    return sum(found.get(name, 0) for name in names) * 1024 / KB


def end_all(processes: Sequence[psutil.Process], *, timeout: float) -> None:
    """Wait until processes have gone, killing those that stay; raises when some cannot be ended."""
    _, alive = psutil.wait_procs(processes, timeout=timeout)
    for process in alive:
        process.kill()
    _, alive = psutil.wait_procs(alive, timeout=timeout)
    if alive:
        raise RuntimeError(f"processes left behind: {alive}")
