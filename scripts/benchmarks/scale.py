"""What one more session costs a worker that has many: time, memory, and the processor while nothing happens.

The sessions are real: a process each, with its pipes, its client and its place on the broker. They are forked from a
server in the standard library, because two thousand of anything larger would measure the machine's memory. A second
worker keeps the smallest population, and is measured in turns with the one that grows.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from scripts.benchmarks.measuring import Timed, duration, in_turns, own_kb, processor_seconds
from scripts.benchmarks.options import Options
from scripts.benchmarks.references import amqp_echo, sdk_start
from scripts.benchmarks.report import Figure, Plot, Sample, Series, Subject, Target, figure
from scripts.benchmarks.servers import PLAIN
from scripts.benchmarks.stage import Stage, in_groups, named, running

EACH = 60
"""Sessions that are opened one by one at each population."""

CALLS = 100
BODY = b'{"session_id": "s-1", "name": "echo", "arguments": {"text": "hello"}, "timeout": 30.0}'

FLAT = 1.2


@dataclass
class Grown:
    """What was seen at each population; memory of the worker in kilobytes, idling in percent of a core."""

    opens: dict[int, Sample] = field(default_factory=dict)
    small_opens: dict[int, Sample] = field(default_factory=dict)
    alone: dict[int, Sample] = field(default_factory=dict)
    calls: dict[int, Sample] = field(default_factory=dict)
    small_calls: dict[int, Sample] = field(default_factory=dict)
    echoes: dict[int, Sample] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)
    idle: dict[int, float] = field(default_factory=dict)


async def measure(options: Options) -> Subject:
    """Grow a worker's population step by step."""
    sizes = options.sizes
    grown = Grown()
    async with AsyncExitStack() as stack:
        echo = await stack.enter_async_context(amqp_echo())
        stage = await stack.enter_async_context(running({"it": PLAIN.forked}))
        small = await stack.enter_async_context(running({"it": PLAIN.forked}))
        (worker,) = stage.workers
        names = list(named("s", max(sizes.populations)))
        for one in (stage, small):
            await _open(one, "first")  # the helper, and what is made once
            await _call(one, "first")
            await one.client.close("first")
        kept = names[: min(sizes.populations)]
        await in_groups(lambda name: _open(small, name), kept, 8)
        grown.memory[0] = own_kb(worker)
        grown.idle[0] = await _idle(stage, sizes.idle_seconds)
        open_now = 0
        for population in sizes.populations:
            each = min(EACH, population - open_now)
            before = population - each
            await in_groups(lambda name: _open(stage, name), names[open_now:before], 8)
            opened = await in_turns(
                {
                    "ours": _on(_open, stage, names[before:population]),
                    "small": _on(_open_and_close, small, ["another"]),
                    "sdk": lambda _: sdk_start(PLAIN.command),
                },
                each,
            )
            called = await in_turns(
                {
                    "ours": _on(_call, stage, names[:population]),
                    "small": _on(_call, small, kept),
                    "echo": lambda _: duration(echo["classic"].ask(BODY)),
                },
                min(CALLS, sizes.calls),
            )
            open_now = population
            grown.opens[population], grown.small_opens[population] = opened["ours"], opened["small"]
            grown.calls[population], grown.small_calls[population] = called["ours"], called["small"]
            grown.alone[population], grown.echoes[population] = opened["sdk"], called["echo"]
            if population == sizes.idle_at:
                grown.idle[population] = await _idle(stage, sizes.idle_seconds)
            grown.memory[population] = own_kb(worker)
    return Subject(figures=_figures(grown), plots=_plots(grown))


async def _open(stage: Stage, name: str) -> float:
    return await duration(stage.client.create(name, "it", timeout=3600))


async def _open_and_close(stage: Stage, name: str) -> float:
    took = await _open(stage, name)
    await stage.client.close(name)
    return took


async def _call(stage: Stage, name: str) -> float:
    return await duration(stage.client.call_tool(name, PLAIN.tool, PLAIN.arguments))


def _on(use: Callable[[Stage, str], Awaitable[float]], stage: Stage, names: list[str]) -> Timed:
    return lambda number: use(stage, names[number % len(names)])


async def _idle(stage: Stage, seconds: float) -> float:
    """Percent of a core that the worker uses while nobody asks anything of it."""
    await asyncio.sleep(1.0)  # what the last opening has left to do
    began, before = time.monotonic(), processor_seconds(stage.workers)
    await asyncio.sleep(seconds)
    return 100 * (processor_seconds(stage.workers) - before) / (time.monotonic() - began)


def _figures(grown: Grown) -> list[Figure]:
    few, many = min(grown.opens), max(grown.opens)
    quiet, busy = min(grown.idle), max(grown.idle)
    half = min(one for one in grown.opens if one >= many / 2)
    first, second = _between(grown.memory, few, half), _between(grown.memory, half, many)
    flat = Target(FLAT, unit="×")
    percent = "% of a core"
    return [
        figure(f"opening a session, the last of {few}", grown.opens[few], against={"sdk": grown.alone[few]}),
        figure(f"opening a session, the last of {many}", grown.opens[many], against={"sdk": grown.alone[many]}),
        figure(
            f"opening a session, {many} against {few}", _growth(grown.opens, grown.small_opens), unit="×", target=flat
        ),
        figure(f"a tool call with {few} sessions", grown.calls[few], against={"classic": grown.echoes[few]}),
        figure(f"a tool call with {many} sessions", grown.calls[many], against={"classic": grown.echoes[many]}),
        figure(
            f"a tool call, {many} sessions against {few}",
            _growth(grown.calls, grown.small_calls),
            unit="×",
            target=flat,
        ),
        figure(
            f"memory of the worker for each of {many} sessions",
            _between(grown.memory, 0, many),
            unit="KB",
            target=Target(100, unit="KB"),
        ),
        figure(f"for each from {few} to {half}", first, unit="KB"),
        figure(f"for each from {half} to {many}", second, unit="KB"),
        figure(
            "memory, the second half against the first", second / first if first > 0 else 1.0, unit="×", target=flat
        ),
        figure(f"idle worker with {quiet} sessions", grown.idle[quiet], unit=percent),
        figure(f"idle worker with {busy} sessions", grown.idle[busy], unit=percent, target=Target(1, unit=percent)),
    ]


def _growth(large: dict[int, Sample], small: dict[int, Sample]) -> float:
    """How much longer a large worker takes, at its largest, than the small one in the same turns."""
    return large[max(large)].median / small[max(small)].median


def _between(memory: dict[int, float], before: int, after: int) -> float:
    """Kilobytes that each session has added between two populations."""
    return (memory[after] - memory[before]) / max(1, after - before)


def _plots(grown: Grown) -> list[Plot]:
    def line(name: str, points: dict[int, float]) -> Series:
        return Series(name=name, points=[(float(x), round(y, 2)) for x, y in points.items()])

    def medians(samples: dict[int, Sample]) -> dict[int, float]:
        return {population: sample.median for population, sample in samples.items()}

    return [
        Plot(
            name="scale-time",
            title="Time of one more session, and of a tool call",
            kind="lines",
            x="sessions on one worker",
            y="ms",
            series=[
                line("AMQP echo", medians(grown.echoes)),
                line("tool call", medians(grown.calls)),
                line("opening a session, forked", medians(grown.opens)),
                line(f"the same with {min(grown.opens)} sessions", medians(grown.small_opens)),
            ],
        ),
        Plot(
            name="scale-memory",
            title="Memory of the worker itself (USS)",
            kind="lines",
            x="sessions on one worker",
            y="MB",
            series=[line("worker", {population: kb / 1000 for population, kb in grown.memory.items()})],
        ),
    ]
