"""Counts what this worker did in the last minute: sessions, tool calls and their durations, dead letters.

The counts are kept for each second of the last minute. So several watchers do not disturb each other, and a new watcher
sees a rate at once.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from datetime import UTC, datetime

from consumer.sessions.record import bucket_of, middle_of
from schemas.errors import StartFailed, StartTimeout
from schemas.ids import ServiceName, WorkerId
from schemas.sessions import FailedStart, ToolFigures, WorkerFigures

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
    dead_letters: Counter[str] = field(default_factory=Counter)


class Figures:
    """Counts what happens, and returns the sums of the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._slots: deque[_Slot] = deque()
        self._failing: dict[str, FailedStart] = {}

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
        """Count a session that was opened."""
        self._slot().starts += 1

    def start_failed(self, service: ServiceName, error: StartFailed | StartTimeout) -> None:
        """Note that a service did not start for a session; it counts as failing until it does."""
        self._failing[service] = FailedStart(code=error.code.value, at=datetime.now(UTC))

    def start_worked(self, service: ServiceName) -> None:
        """Note that a service has started for a session."""
        self._failing.pop(service, None)

    def reconfigured(self, unchanged: Container[str]) -> None:
        """Note a new configuration: of a service that it adds or changes no failed start is known."""
        self._failing = {service: failed for service, failed in self._failing.items() if service in unchanged}

    def ended(self) -> None:
        """Count a session that has ended."""
        self._slot().ends += 1

    def called(self, service: str, seconds: float, *, error: bool) -> None:
        """Count a finished tool call: answered, failed or cancelled."""
        tools = self._slot().tools
        if (calls := tools.get(service)) is None:
            calls = tools[service] = _Calls()
        calls.count += 1
        calls.errors += error
        calls.durations[bucket_of(seconds)] += 1

    def dead_lettered(self, reason: str) -> None:
        """Count a dead letter."""
        self._slot().dead_letters[reason] += 1

    def last_minute(self, worker_id: WorkerId, *, placer: bool) -> WorkerFigures:
        """Return the sums of the last minute. The current second counts in part.

        ``placer`` says whether this worker is the placer at the moment.
        """
        now = self._clock()
        self._forget(math.floor(now))
        tools: dict[str, _Calls] = {}
        dead_letters: Counter[str] = Counter()
        for slot in self._slots:
            dead_letters += slot.dead_letters
            for service, calls in slot.tools.items():
                total = tools.setdefault(service, _Calls())
                total.count += calls.count
                total.errors += calls.errors
                total.durations += calls.durations
        return WorkerFigures(
            worker_id=worker_id,
            placer=placer,
            seconds=round(min(now - self._began, SPAN - 1 + now % 1), 3),
            starts=sum(slot.starts for slot in self._slots),
            ends=sum(slot.ends for slot in self._slots),
            tools={ServiceName(service): _told(calls) for service, calls in sorted(tools.items())},
            parked=dict(dead_letters),
            failing=dict(self._failing),
        )


def _told(calls: _Calls) -> ToolFigures:
    durations = [(float(f"{middle_of(bucket):.4g}"), count) for bucket, count in sorted(calls.durations.items())]
    return ToolFigures(calls=calls.count, errors=calls.errors, durations=durations)
