"""What this worker did in the last minute, for whoever watches: counts and durations, in memory that does not grow.

Kept in slots of a second, of which those of a minute are remembered. Two watchers do not disturb each other, and who
has just begun to watch sees a rate at once.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from consumer.sessions.record import bucket_of, middle_of
from schemas.ids import ServiceName, WorkerId
from schemas.sessions import ToolFigures, WorkerFigures

SPAN = 60
"""How many seconds are remembered."""


@dataclass(slots=True)
class _Calls:
    count: int = 0
    errors: int = 0
    durations: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class _Slot:
    second: int
    starts: int = 0
    ends: int = 0
    tools: dict[str, _Calls] = field(default_factory=dict)
    parked: Counter[str] = field(default_factory=Counter)


class Figures:
    """Counts what happens, and tells what happened in the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._slots: deque[_Slot] = deque()
        self.placing: Callable[[], bool] = lambda: False
        """Whether this worker is the placer at the moment."""

    def _slot(self) -> _Slot:
        second = math.floor(self._clock())
        if not self._slots or self._slots[-1].second != second:
            self._forget(second)
            self._slots.append(_Slot(second))
        return self._slots[-1]

    def _forget(self, second: int) -> None:
        while self._slots and self._slots[0].second <= second - SPAN:
            self._slots.popleft()

    def started(self) -> None:
        """A session is open."""
        self._slot().starts += 1

    def ended(self) -> None:
        """A session is over."""
        self._slot().ends += 1

    def called(self, service: str, seconds: float, *, error: bool) -> None:
        """A tool call is over, be it answered, failed or cancelled."""
        calls = self._slot().tools.setdefault(service, _Calls())
        calls.count += 1
        calls.errors += error
        calls.durations[bucket_of(seconds)] += 1

    def parked(self, reason: str) -> None:
        """A message went to the parking lot."""
        self._slot().parked[reason] += 1

    def last_minute(self, worker_id: WorkerId) -> WorkerFigures:
        """The sums; the second that is under way counts for what has passed of it."""
        now = self._clock()
        self._forget(math.floor(now))
        tools: dict[str, _Calls] = {}
        parked: Counter[str] = Counter()
        for slot in self._slots:
            parked += slot.parked
            for service, calls in slot.tools.items():
                total = tools.setdefault(service, _Calls())
                total.count += calls.count
                total.errors += calls.errors
                total.durations += calls.durations
        return WorkerFigures(
            worker_id=worker_id,
            placer=self.placing(),
            seconds=round(min(now - self._began, SPAN - 1 + now % 1), 3),
            starts=sum(slot.starts for slot in self._slots),
            ends=sum(slot.ends for slot in self._slots),
            tools={ServiceName(service): _told(calls) for service, calls in sorted(tools.items())},
            parked=dict(parked),
        )


def _told(calls: _Calls) -> ToolFigures:
    durations = [(float(f"{middle_of(bucket):.4g}"), count) for bucket, count in sorted(calls.durations.items())]
    return ToolFigures(calls=calls.count, errors=calls.errors, durations=durations)
