"""A session: one MCP server process of a call, with its deadlines.

Decisions are made on the monotonic clock, so neither a corrected system time nor a daylight change ends anybody's
session; ``created_at`` and ``last_accessed`` are wall clock, in UTC, for people and for the wire.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Generic, Protocol, TypeVar

from consumer.sessions.record import ToolRecord
from schemas.base import Json
from schemas.events import EndReason, SessionEventType
from schemas.ids import CallId, ServiceName, SessionId, call_id_of


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """How a process ended: its exit code or the number of the signal that ended it, and the tail of its stderr."""

    exit_code: int | None
    signal: int | None
    stderr: str

    @property
    def told(self) -> str:
        """How the process ended, in words. Over HTTP there is neither number."""
        if self.signal is not None:
            return f"the server was ended by signal {self.signal}"
        if self.exit_code is not None:
            return f"the server has ended with exit code {self.exit_code}"
        return "the connection was lost"

    @property
    def details(self) -> Json:
        """The details of an error or event about this end: ``exit_code``, ``signal`` and ``stderr``."""
        return {"exit_code": self.exit_code, "signal": self.signal, "stderr": self.stderr}


class SessionProcess(Protocol):
    """The interface of a session's MCP client. A remote server without a process fits too."""

    @property
    def is_alive(self) -> bool:
        """Whether calls can still be served."""

    def on_exit(self, callback: Callable[[ProcessExit], None]) -> None:
        """Call ``callback`` once, in the event loop, when the process ends without a call of ``stop``.

        If the process has already ended, it is called soon.
        """

    async def stop(self) -> None:
        """End the process and free its resources. Idempotent, and bounded in time."""


P = TypeVar("P", bound=SessionProcess)


def utc_now() -> datetime:
    """The wall clock, for display."""
    return datetime.now(UTC)


@dataclass(slots=True, eq=False)
class Session(Generic[P]):
    """An open session. It is compared by identity, because its replacement has the same id.

    ``timeout`` and ``max_lifetime`` are seconds. For a restored session, an earlier ``created_at`` counts towards
    ``max_lifetime``, and an earlier ``last_accessed`` towards ``timeout``. Assigning to them later changes only what is
    shown. Calls must run within ``in_use``.
    """

    session_id: SessionId
    service_name: ServiceName
    process: P = field(repr=False)
    created_at: datetime = field(default_factory=utc_now)
    last_accessed: datetime = field(default_factory=utc_now)
    timeout: float = 300
    metadata: Json = field(default_factory=dict, repr=False)  # a caller's number is nobody's business in a log
    max_lifetime: float | None = field(default=None, kw_only=True)
    restored: bool = field(default=False, kw_only=True)
    life: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)
    """The id of this life. A restored session has the same session id, but another life."""
    record: ToolRecord = field(default_factory=ToolRecord, kw_only=True, repr=False)
    in_flight: int = field(default=0, init=False)
    end_reason: EndReason | None = field(default=None, init=False)
    exit: ProcessExit | None = field(default=None, init=False)
    on_end: "Callable[[SessionEnded[P]], None] | None" = field(default=None, kw_only=True, repr=False)
    """Called with the end. For the code that opened the session."""
    _ended: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)
    _ends_at: float = field(init=False, repr=False)
    _touched: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        now, wall = time.monotonic(), utc_now()
        self.created_at = self.created_at.astimezone(UTC)
        self.last_accessed = self.last_accessed.astimezone(UTC)
        # A moment ahead of us is another machine's clock: that session is new, not from the future.
        self._touched = now - max(0.0, (wall - self.last_accessed).total_seconds())
        born = now - max(0.0, (wall - self.created_at).total_seconds())
        self._ends_at = inf if self.max_lifetime is None else born + self.max_lifetime

    @property
    def call_id(self) -> CallId:
        """The call that the session belongs to."""
        return call_id_of(self.session_id)

    @property
    def deadline(self) -> float:
        """The earliest time, on the monotonic clock, at which the session can expire. ``touch`` postpones it."""
        return min(self._idle_at(time.monotonic()), self._ends_at)

    @property
    def time_remaining(self) -> float:
        """Seconds left without a further use. During a call, idle time has not begun."""
        now = time.monotonic()
        return max(0.0, min(self._idle_at(now), self._ends_at) - now)

    @property
    def closed_because(self) -> EndReason | None:
        """The reason for which the session was ended while its process ran; None if it is open, or the process died."""
        reason = self.end_reason
        return None if reason is None or reason.event_type is SessionEventType.DIED else reason

    @property
    def expired_because(self) -> EndReason | None:
        """``IDLE`` or ``MAX_LIFETIME``, whichever came first, once the session has expired."""
        now = time.monotonic()
        idle_at = self._idle_at(now)
        if min(idle_at, self._ends_at) > now:
            return None
        return EndReason.IDLE if idle_at <= self._ends_at else EndReason.MAX_LIFETIME

    @property
    def is_expired(self) -> bool:
        """Whether the session has expired, even if nothing has noticed it yet."""
        return self.expired_because is not None

    @property
    def is_alive(self) -> bool:
        """Whether its process can serve a call."""
        return self.process.is_alive

    @property
    def has_ended(self) -> bool:
        """Whether its manager has ended it. ``end_reason`` says why, and ``exit`` how its process died, if it did."""
        return self.end_reason is not None

    async def wait_ended(self) -> None:
        """Wait until the manager has ended it; its process may still be stopping."""
        await self._ended.wait()

    def touch(self) -> None:
        """Restart the idle time. The cost is always the same."""
        self._touched = time.monotonic()
        self.last_accessed = utc_now()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the session from going idle while a call runs. Idle time counts from the end of the last call.

        ``max_lifetime`` and the death of the process still end the session. ``end_reason`` then says why.
        """
        self.in_flight += 1
        self.touch()
        try:
            yield
        finally:
            self.in_flight -= 1
            self.touch()

    def renew_life(self) -> None:
        """Begin a new life: the end of the former one was reported, as for a restored session."""
        self.life = uuid.uuid4().hex
        self.restored = True

    def mark_ended(self, reason: EndReason, exit: ProcessExit | None) -> None:  # noqa: A002 - the field's name
        """Record the end and wake its waiters. Only the manager calls this."""
        self.end_reason, self.exit = reason, exit
        self._ended.set()

    def _idle_at(self, now: float) -> float:
        # With a call in flight the earliest end is a timeout from now, should the call return this instant. That is
        # what lets the ordered set of deadlines look again in time without being told when calls begin and end.
        return (now if self.in_flight else self._touched) + self.timeout


@dataclass(frozen=True, slots=True)
class SessionCreated(Generic[P]):
    """A session can be used from now on."""

    session: Session[P]


@dataclass(frozen=True, slots=True)
class SessionEnded(Generic[P]):
    """A session can no longer be used. ``exit`` is known if the process died by itself.

    ``session.record.summary()`` summarises its tool calls.
    """

    session: Session[P]
    reason: EndReason
    exit: ProcessExit | None = None
