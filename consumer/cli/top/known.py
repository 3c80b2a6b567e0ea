"""The known state of the cluster: workers, sessions, the figures of the last minute, and the latest events.

Pure. A listing is already out of date when it arrives. So the events since the request are applied to it again.
Otherwise closed sessions would reappear for a second, and new ones would be missing.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from schemas.events import CloudEvent

EVENTS = 200
"""How many events are kept for the screen."""


NOBODY = "no worker answers"
NOTHING = "nothing declared"
"""The problem shown if neither a worker nor an operator has declared the topology under the prefix."""


class Now(NamedTuple):
    """A moment, on this process's monotonic clock (s) and in the calendar."""

    ticks: float
    date: datetime


@dataclass(frozen=True, slots=True)
class Interruption:
    """A time without a connection, in which events were missed: when it was over, and its length (s)."""

    time: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class SessionRow:
    """An open session. ``runs_out`` (on our own clock, s) is when it expires without a use."""

    session_id: str
    call_id: str
    service: str
    worker: str
    created_at: datetime
    timeout: float
    runs_out: float
    restored: bool

    @classmethod
    def of(cls, info: Mapping[str, Any], ticks: float) -> "SessionRow":
        """Return a session that a worker reported at ``ticks``."""
        return cls(
            session_id=info["session_id"],
            call_id=info["call_id"],
            service=info["service_name"],
            worker=info["worker_id"],
            created_at=datetime.fromisoformat(info["created_at"]),
            timeout=info["timeout"],
            runs_out=ticks + info["time_remaining"],
            restored=bool(info.get("restored")),
        )

    def left(self, ticks: float) -> float:
        """Return how long (s) the session may stay unused from ``ticks`` on."""
        return min(self.timeout, max(0.0, self.runs_out - ticks))


@dataclass(frozen=True, slots=True)
class ClusterListing:
    """What the workers answered to one round of questions."""

    workers: Sequence[Mapping[str, Any]]
    sessions: Mapping[str, Mapping[str, Any]]
    missing: Sequence[str] = ()
    """Workers that did not list their sessions in time."""
    more: bool = False
    """Whether there are more sessions than were fetched."""
    figures: Sequence[Mapping[str, Any]] | None = None
    """What each worker did in the last minute; None if the workers are too old to report it."""
    dead_letters: int | None = None


_OVER = frozenset({"closed", "expired", "died", "lost"})
"""The types of events that end a session."""


@dataclass(slots=True)
class Known:
    """What is known of the cluster."""

    where: str
    connected: bool = True
    problem: str = ""
    """Why the shown data is not up to date."""
    listing: ClusterListing = field(default_factory=lambda: ClusterListing((), {}))
    heard_at: float = -math.inf
    """When the workers answered last, on our own clock (s)."""
    sessions: dict[str, SessionRow] = field(default_factory=dict)
    events: "deque[CloudEvent | Interruption]" = field(default_factory=lambda: deque(maxlen=EVENTS))

    def listed(self, listing: ClusterListing, ticks: float, since: "Iterable[CloudEvent]" = ()) -> None:
        """Take the workers' answers. ``since``: the events that came after the request."""
        self.listing, self.heard_at, self.problem = listing, ticks, ""
        self.sessions = {name: SessionRow.of(info, ticks) for name, info in listing.sessions.items()}
        for event in since:
            self._apply(event, ticks)

    def happened(self, event: "CloudEvent | Interruption", ticks: float) -> None:
        """Take an event, or note that some were missed."""
        self.events.append(event)
        if not isinstance(event, Interruption):
            self._apply(event, ticks)

    def _apply(self, event: "CloudEvent", ticks: float) -> None:
        family, _, what = event.type.removeprefix("mcp.").partition(".")
        if family != "session" or event.subject is None:
            return
        if what == "created":
            self.sessions[event.subject] = SessionRow.of(event.data, ticks)
        elif what in _OVER:
            known = self.sessions.get(event.subject)
            if known is not None and known.worker == event.data.get("worker_id"):  # else it has been replaced already
                del self.sessions[event.subject]

    @property
    def open(self) -> int:
        """The number of open sessions, including those that were not fetched."""
        counted = sum(worker["sessions"] for worker in self.listing.workers)
        return max(counted, len(self.sessions)) if self.listing.more else len(self.sessions)

    @property
    def capacity(self) -> int:
        """The number of sessions that all workers may have."""
        return sum(worker["capacity"] for worker in self.listing.workers)

    @property
    def placer(self) -> str | None:
        """The worker that places calls, once it has placed one."""
        return next((one["worker_id"] for one in self.listing.figures or () if one["placer"]), None)


@dataclass(frozen=True, slots=True)
class Minute:
    """The figures of the last minute: rates are per second, durations in seconds."""

    starts: float = 0.0
    ends: float = 0.0
    calls: float = 0.0
    errors: float = 0.0
    p50: float | None = None
    p95: float | None = None
    dead_letters: Mapping[str, int] = field(default_factory=dict)


def minute(figures: Iterable[Mapping[str, Any]]) -> Minute:
    """Return the figures of several workers as one."""
    starts = ends = calls = errors = 0.0
    durations: Counter[float] = Counter()
    dead_letters: Counter[str] = Counter()
    for one in figures:
        seconds = max(1.0, one["seconds"])
        starts += one["starts"] / seconds
        ends += one["ends"] / seconds
        dead_letters.update(one["parked"])
        for tool in one["tools"].values():
            calls += tool["calls"] / seconds
            errors += tool["errors"] / seconds
            for duration, count in tool["durations"]:
                durations[duration] += count
    return Minute(
        starts, ends, calls, errors, _percentile(durations, 0.50), _percentile(durations, 0.95), dict(dead_letters)
    )


def _percentile(durations: Mapping[float, int], share: float) -> float | None:
    rank = math.ceil(share * sum(durations.values()))
    for duration in sorted(durations):
        rank -= durations[duration]
        if rank <= 0:
            return duration
    return None
