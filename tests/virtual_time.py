"""A test on the clock of the simulation: what it waits for comes at once, and no busy machine changes the order."""

import asyncio
import functools
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from tests.simulation.world.loop import SimulatedLoop
from tests.simulation.world.nature import Nature, simulated

MOST = 7_200.0
"""Seconds within which a test ends: one that waits in vain would let time pass for ever."""

natures: list[Nature] = []
"""That of the test that runs."""


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a loop whose time passes when nobody has anything to do; what it begins ends with it.

    Its parts are made within it: a fixture has another loop.
    """

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        problems: list[dict[str, Any]] = []
        chance = random.Random(0)
        with simulated() as begin:
            loop = SimulatedLoop(chance)
            nature = Nature(loop, chance)
            begin(nature)
            natures.append(nature)
            loop.set_exception_handler(lambda _, context: problems.append(context))
            asyncio.set_event_loop(loop)
            try:
                loop.run_until_complete(_and_ends(test(*args, **kwargs)))
            finally:
                natures.remove(nature)
                asyncio.set_event_loop(None)
                loop.close()
        assert not problems

    return run


async def _and_ends(test: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(MOST):
        await test
    this, tasks = asyncio.current_task(), natures[-1].loop.world.tasks
    for _ in range(10):  # those that have only their last turns to come
        await asyncio.sleep(0)
    left = [task for task in tasks if task is not this and not task.done()]
    assert not left, f"tasks left behind: {left}"


def moment() -> float:
    """The wall clock (s since the epoch) of the test that runs."""
    return natures[-1].wall()


def now() -> datetime:
    """The same as a date."""
    return datetime.fromtimestamp(moment(), UTC)


async def passes(seconds: float) -> None:
    """Let so much time pass, and everything happen that it brings."""
    await asyncio.sleep(seconds)
