"""What is drawn or read from a clock in a worker, and comes from the simulated world instead: the one place for it.

Everything else that a worker does is decided by what it is sent, and when. Sets of texts have an order that depends on
``PYTHONHASHSEED``, which the command line fixes.
"""

import asyncio
import itertools
import random
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from tests.simulation.world.loop import BEGINNING, EPOCH, SimulatedLoop

_NONE = object()
OURS = ("consumer", "schemas", "tenacity")


class Nature:
    """The clocks and the chance of one world."""

    def __init__(self, loop: SimulatedLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance

    def wall(self) -> float:
        """Seconds since the epoch, as the process that runs believes."""
        return self.loop.time() - BEGINNING + EPOCH + self.loop.current.skew


class _Id:
    """What is used of a UUID."""

    __slots__ = ("hex",)

    def __init__(self, bits: int) -> None:
        self.hex = f"{bits:032x}"


class _Datetime(type(datetime)):  # type: ignore[misc]
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


def _made(world: "Callable[[], Nature]") -> tuple[Any, Any]:
    class SimulatedDatetime(datetime, metaclass=_Datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(world().wall(), tz)

    clock = SimpleNamespace(**{name: getattr(time, name) for name in dir(time) if not name.startswith("_")})
    clock.time = lambda: world().wall()
    clock.monotonic = lambda: world().loop.time()  # noqa: PLW0108 - of the world that is there then
    clock.perf_counter = clock.monotonic
    clock.time_ns = lambda: int(world().wall() * 1e9)
    return clock, SimulatedDatetime


@contextmanager
def simulated() -> Iterator[Callable[[Nature], None]]:
    """Have workers live by a simulated nature within this; what it gives says which one it is from now on."""
    from consumer.worker import wiring  # all of it has to be there already

    current: list[Nature] = []
    clock, simulated_datetime = _made(lambda: current[0])
    numbers: list[Iterator[int]] = [itertools.count(1)]
    saved: list[tuple[Any, str, Any]] = []

    def put(where: Any, name: str, value: Any) -> None:
        saved.append((where, name, vars(where).get(name, _NONE)))
        setattr(where, name, value)

    def number_of(timeout: Any) -> int:
        known = timeout.__dict__
        if "_number" not in known:
            known["_number"] = next(numbers[0])
        return int(known["_number"])

    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] in OURS]:
        if getattr(module, "time", None) is time:
            put(module, "time", clock)
        if getattr(module, "datetime", None) is datetime:
            put(module, "datetime", simulated_datetime)
    put(uuid, "uuid4", lambda: _Id(current[0].chance.getrandbits(128)))
    put(secrets, "token_hex", lambda size=32: f"{current[0].chance.getrandbits(8 * size):0{2 * size}x}")
    put(wiring, "new_worker_id", lambda: f"{current[0].loop.current.name}-{secrets.token_hex(4)}")
    put(asyncio.Timeout, "__hash__", number_of)
    of_loops = (asyncio, asyncio.events)
    for module in of_loops:
        put(module, "get_running_loop", asyncio.get_running_loop)
    if (known_tasks := getattr(asyncio.tasks, "_all_tasks", None)) is not None:  # Python 3.11; later ones are quick
        put(known_tasks, "add", lambda _: None)  # nobody asks for all of them
    for metric, method in ((Counter, "inc"), (Histogram, "observe"), (Gauge, "set")):
        put(metric, method, lambda *_, **__: None)

    def begin(nature: Nature) -> None:
        current[:] = [nature]
        for module in of_loops:  # up to Python 3.11 it asks the kernel each time whether it was forked
            vars(module)["get_running_loop"] = itertools.repeat(nature.loop).__next__
        numbers[:] = [itertools.count(1)]
        random.seed(nature.chance.getrandbits(64))

    try:
        yield begin
    finally:
        for where, name, value in reversed(saved):
            if value is _NONE:
                delattr(where, name)
            else:
                setattr(where, name, value)
