"""Living one world, and what came of it."""

import asyncio
import gc
import itertools
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.simulation import checker, undisturbed
from tests.simulation.broker.stored import Published
from tests.simulation.world.loop import SimulatedLoop
from tests.simulation.world.nature import OURS, Nature
from tests.simulation.world.plan import Plan
from tests.simulation.world.world import World

HARMLESS = {"liveness.lost", "placer.poison_message"}
"""Errors that workers log because something was done to them."""


TOGETHER = 30
"""How many worlds are collected together."""

_ended = itertools.count(1)


@dataclass
class Outcome:
    """What came of one world."""

    plan: Plan
    problems: list[str]
    trace: str
    counts: Counter[str] = field(default_factory=Counter)
    story: list[tuple[float, str, str]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """What the first problem is about, apart from names and numbers: for telling whether it is the same one."""
        if not self.problems:
            return ""
        words = [one for one in self.problems[0].split() if one.isalpha() and not one[0].isdigit()]
        return " ".join(words[:6])


class Logs:
    """What workers log in this process: errors are problems, and all of it is a part of the story if one is told.

    It takes the place of the loggers of our modules: what nobody hears costs nothing.
    """

    def __init__(self) -> None:
        self.world: World | None = None
        logging.getLogger("consumer").addHandler(_Handler(self))
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in OURS and hasattr(module, "log"):
                module.log = self  # type: ignore[attr-defined]
        self.configure(telling=False)

    def configure(self, *, telling: bool) -> None:
        """Hear everything when a story is told, and errors only otherwise."""
        self.telling = telling
        self.debug = self.info = self.warning = partial(self._heard, "info") if telling else _unheard
        self.error = self.exception = self.critical = partial(self._heard, "error")

    def _heard(self, level: str, event: str, **fields: Any) -> None:
        self.hear(level, {"event": event, **fields})

    def hear(self, level: str, event: dict[str, Any]) -> None:
        world = self.world
        if world is None:
            return
        name = str(event.pop("event", ""))
        if level == "error" and name not in HARMLESS:
            error = event.get("exc_info") or sys.exc_info()[1]
            world.problems.append(f"{world.loop.current.name} logged {name} {event} {error!r}")
        if self.telling:
            told = " ".join(f"{key}={value}" for key, value in event.items() if key != "exc_info")
            world.tell(world.loop.current.name, f"  {name} {told}")


def _unheard(_event: str, **_fields: Any) -> None:
    """Nobody hears it."""


class _Handler(logging.Handler):
    def __init__(self, logs: Logs) -> None:
        super().__init__(logging.ERROR)
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        self._logs.hear("error", {"event": record.getMessage(), "exc_info": record.exc_info and record.exc_info[1]})


async def _live(world: World, lives: checker.Lives) -> list[str]:
    await world.live()
    problems = []
    if not await world.until(lambda: not checker.open_problems(world, lives), "peace"):
        problems += [f"after peace: {one}" for one in checker.open_problems(world, lives)]
    probe = undisturbed.Probe(world)
    if not await world.until(lambda: not probe.unanswered(), "answers"):
        problems += [f"after peace: {one}" for one in probe.unanswered()]
    world.tell("world", "all calls end")
    world.end_all()
    if not await world.until(lambda: not checker.none_open(world), "ends"):
        problems += [f"after all ends: {one}" for one in checker.none_open(world)]
    world.tell("world", "all workers leave")
    for one in world.workers:
        if one.running and one.leaving_since is None:
            world.faults.send_home(one)
            if world.drawn() < 0.5:
                await asyncio.sleep(world.drawn() * 3)
    if not await world.until(lambda: not checker.all_gone(world), "leaving"):
        problems += checker.all_gone(world)
    await asyncio.sleep(30.0)
    return problems


def live(
    plan: Plan, begin: Callable[[Nature], None], logs: Logs, *, telling: bool = False, traced: bool = False
) -> Outcome:
    """Live the world of a plan, and check it."""
    world = World(plan, traced=traced)
    begin(world.nature)
    logs.configure(telling=telling)
    logs.world = world
    if telling:
        world.node.on_publish = partial(_tell_published, world)
    began = time.process_time()
    loop = world.loop
    lives = checker.Lives(world)
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(lambda _, context: world.problems.append(f"the loop: {context}"))
    try:
        problems = loop.run_until_complete(_live(world, lives))
        lives.heard()
        problems += [
            *checker.check_lives(world, lives),
            *checker.check_restored(world, lives),
            *checker.check_executions(world),
            *checker.check_commands(world, lives),
            *checker.check_answers(world),
            *undisturbed.check_undisturbed(world, lives),
            *undisturbed.check_kept(world, lives),
            *checker.check_left(world),
            *checker.check_workers(world),
            *world.problems,
        ]
    finally:
        _end(loop, world)
        logs.world = None
    counts = lives.counts
    counts["worlds"] = 1
    counts["calls"] = len(plan.calls)
    counts["faults"] = world.faults.done.total()
    counts += Counter({f"fault {what}": count for what, count in world.faults.done.items()})
    counts["frames"] = world.node.frames
    counts["steps"] = loop.steps
    probes = {one.number for one in world.people.asked if one.what == undisturbed.PROBE}
    asked = [one for one in world.people.asked if one.number not in probes]
    counts["tool calls executed"] = len(world.books.executed.keys() - probes)
    counts["requests"] = len(asked)
    counts["requests answered"] = sum(bool(one.answers) for one in asked)
    counts["cpu ms"] = round((time.process_time() - began) * 1000)
    return Outcome(plan, problems, world.trace_hash, counts, world.story)


def _tell_published(world: World, message: Published, queues: list[str]) -> None:
    world.published(message, queues)
    given = {key: value for key, value in message.headers.items() if key.startswith("x-mcp")}
    kind = message.properties.message_type or ""
    world.tell("broker", f"  {kind} {message.exchange!r} {message.routing_key!r} -> {queues} {given}")


def _end(loop: SimulatedLoop, world: World) -> None:
    """Let go of a world: what killed workers have left is collected where nobody hears it."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda *_: None
    try:
        asyncio.set_event_loop(None)
        loop.set_exception_handler(lambda *_: None)
        for one in [loop.world, *(worker.process for worker in world.workers)]:
            one.forget()
        loop._timers.clear()
        loop.close()
        if next(_ended) % TOGETHER == 0:
            gc.collect()
    finally:
        sys.unraisablehook = hook
