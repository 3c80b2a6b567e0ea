"""How much is measured, and against whom."""

from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.servers import ON_SDK, PLAIN, MeasuredServer


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many of everything; the figures of ``QUICK`` mean nothing, it only shows that all of it works."""

    starts: int = 20
    """Starts of each kind, one by one."""
    pool: int = 4
    burst: int = 32
    """Sessions that are opened and closed at once."""
    sustained: int = 150
    """Sessions that are opened and closed in a row, for starts a second."""
    calls: int = 1000
    """Tool calls one by one."""
    sessions: int = 12
    """Sessions with tool calls at once."""
    callers: int = 4
    """Callers of each of them."""
    busy_seconds: float = 3.0
    """For how long they call as fast as they are answered, in each round."""
    rounds: int = 3
    """How often everything is done that is over at once."""
    phone_calls: int = 300
    at_once: int = 30
    """Phone calls that are between their start and their end at any time."""
    listed: int = 1000
    workers: int = 3
    populations: tuple[int, ...] = (10, 50, 100, 200, 500, 1000, 1500, 2000)
    idle_at: int = 500
    idle_seconds: float = 20.0
    expiring: int = 1000


QUICK = Sizes(
    starts=2,
    pool=1,
    burst=2,
    sustained=4,
    calls=10,
    sessions=2,
    callers=2,
    busy_seconds=0.05,
    rounds=1,
    phone_calls=4,
    at_once=2,
    listed=6,
    workers=2,
    populations=(2, 4, 6),
    idle_at=4,
    idle_seconds=0.2,
    expiring=5,
)


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for: ``peer`` is the Python that has the gateway, ``stacks`` where to keep a profile."""

    sizes: Sizes = Sizes()
    peer: Path | None = None
    time_server: MeasuredServer | None = None
    profile: bool = False
    stacks: Path | None = None

    @property
    def servers(self) -> list[MeasuredServer]:
        """The servers whose starts are measured."""
        others = [self.time_server] if self.time_server else []
        return [PLAIN, *others] if self.sizes is QUICK else [PLAIN, ON_SDK, *others]
