"""The table of sessions: opens, finds, expires and ends them.

The event loop is the only lock: whatever changes the table does so between two awaits, so every decision is whole.
Waiting is left to tasks that the manager holds, by name ``session-start <id>`` and ``session-stop <id>``.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar, assert_never

from consumer.sessions.expiry import Expiry
from consumer.sessions.limits import LimitSettings, Places, SessionLimits
from consumer.sessions.record import ToolRecord
from consumer.sessions.reservations import Reservation
from consumer.sessions.session import P, ProcessExit, Session, SessionCreated, SessionEnded, utc_now
from consumer.sessions.starts import Starts
from consumer.sessions.stops import Stops
from consumer.sessions.turns import Turns
from schemas.base import Json, iso
from schemas.errors import SessionExists, ShuttingDown
from schemas.events import EndReason
from schemas.ids import ServiceName, SessionId, call_id_of

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=SessionCreated[Any] | SessionEnded[Any])

IfExists = Literal["replace", "keep", "reject"]

EXIT_NOTICE_TIMEOUT = 1.0
"""Seconds that a dead process has to report its exit (its stderr may still be read) before its session ends."""


class Opened(NamedTuple, Generic[P]):
    """The result of ``open_session``. ``created`` is False if an existing session was kept."""

    session: Session[P]
    created: bool


class SessionManager(Generic[P]):
    """Sessions by id, within limits, each ended exactly once.

    ``on_room`` is called when a place is free again: a session has ended, a start has failed, or a ringing call was not
    answered. ``on_event`` is called, in order and at the moment of each decision, with ``SessionCreated`` and then
    exactly one ``SessionEnded`` for each session; the session is then out of the table and its process not stopped yet.
    It must not block; its exceptions are logged. Everything belongs to one event loop; ``start`` is optional and
    ``shutdown`` is not, except within ``async with``.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | LimitSettings | None = None,
        *,
        on_event: Callable[[SessionCreated[P] | SessionEnded[P]], None] | None = None,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_event = on_event
        self._sessions: dict[SessionId, Session[P]] = {}
        self._places = Places(SessionLimits.from_config(config), on_room)
        self._turns = Turns()
        self._expiry = Expiry[P](self.limits.cleanup_interval, self._end, self._sweep)
        self._dying: dict[Session[P], asyncio.TimerHandle] = {}
        self._stops = Stops()
        self._starts = Starts[P](self._stops)
        self._reservations: set[Reservation[P]] = set()
        self._starting_ahead: set[asyncio.Task[P]] = set()
        self._leaving = False

    @property
    def limits(self) -> SessionLimits:
        """The current limits. New limits apply to the next sessions, and close no open session."""
        return self._places.limits

    @limits.setter
    def limits(self, limits: SessionLimits) -> None:
        self._places.limits = limits

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.shutdown()

    async def start(self) -> None:
        """Begin to check for processes that died unnoticed. Otherwise the first session begins it. Idempotent."""
        self._refuse_when_leaving()
        self._expiry.start()

    async def shutdown(self, reason: EndReason = EndReason.WORKER_SHUTDOWN) -> None:
        """End all sessions at once and wait until every process has stopped. Running starts are cancelled.

        Idempotent: further calls wait for the same end. Cancelling it stops the waiting only. Takes as long as the
        slowest ``stop``, or the slowest ``start`` takes to notice that it was cancelled.
        """
        self._leaving = True
        self._expiry.stop()
        self._starts.call_off()
        for reservation in list(self._reservations):
            reservation.give_back()
        for session in list(self._sessions.values()):
            self._end(session, reason)
        while pending := self._starts.pending | self._starting_ahead | self._stops.tasks:
            await asyncio.wait(pending)

    async def create_session(
        self,
        session_id: SessionId,
        service_name: ServiceName,
        process: P,
        timeout: float | None = None,
        metadata: Json | None = None,
        *,
        restored: bool = False,
        created_at: datetime | None = None,
    ) -> Session[P]:
        """Open a session on a running process. An open session with this id ends first, reason ``replaced``.

        Does not wait for the replaced one's process to stop. Whenever it raises, ``process`` is left to the caller
        and the session that was there (unlike at SignalWire's) is untouched.

        Raises:
            LimitReached: ``SessionLimit`` or ``ServiceSessionLimit``.
            ShuttingDown: The manager is leaving or has left.
        """
        timeout = self._timeout(timeout)
        async with self._turns.of(session_id):
            existing = await self._present(session_id)
            self._refuse_when_leaving()
            self._make_room(service_name, existing)
            return self._add(
                session_id,
                service_name,
                process,
                timeout=timeout,
                metadata=metadata,
                restored=restored,
                created_at=created_at,
            )

    async def open_session(
        self,
        session_id: SessionId,
        service_name: ServiceName,
        start: Callable[[], Awaitable[P]],
        timeout: float | None = None,
        metadata: Json | None = None,
        *,
        if_exists: IfExists = "replace",
        restored: bool = False,
        created_at: datetime | None = None,
        reserved: Reservation[P] | None = None,
        on_end: Callable[[SessionEnded[P]], None] | None = None,
    ) -> Opened[P]:
        """Take a place, start a process and open a session on it.

        Openings of one id take turns. ``start`` runs in a task of the manager, is asked for only when there is a
        place, and owns its process until it returns. ``replace`` ends the old session before the new process starts,
        uses its place, and does not wait for its process to stop. ``keep`` touches the session that it finds and
        leaves it as it is, whatever service, timeout and metadata were asked for.

        ``on_end`` is called once at the end of the created session, before ``on_event``. It must not block, and its
        exceptions are logged. No other code runs between the creation and the return to the caller.

        A ``reserved`` place and process are used, or given back if they were not needed. The session takes the place,
        and a live process saves the ``start``.

        When it raises, no session was opened, the place is given back and a process that was started is being
        stopped; a session that was there is untouched if a limit refused, and gone if ``start`` failed. Cancelling
        it cancels ``start`` and waits until that has ended.

        Raises:
            LimitReached: ``SessionLimit`` or ``ServiceSessionLimit``; nothing was started.
            SessionExists: There is one and ``if_exists`` is ``reject``.
            ShuttingDown: The manager is leaving or has left.
            Exception: What ``start`` raised, as it is.
        """
        try:
            timeout = self._timeout(timeout)
            async with self._turns.of(session_id):
                existing = await self._present(session_id)
                self._refuse_when_leaving()
                if existing is not None:
                    match if_exists:
                        case "keep":
                            existing.touch()
                            return Opened(existing, created=False)
                        case "reject":
                            problem = (
                                f"session {session_id} is open, and the request has if_exists: reject; "
                                "with keep it returns that session, with replace it opens a new one"
                            )
                            raise SessionExists(problem, session_id=session_id)
                        case "replace":
                            pass
                        case _:
                            assert_never(if_exists)
                if reserved is not None:
                    reserved.free_place()
                    start = reserved.claim
                self._make_room(service_name, existing)
                began = time.monotonic()
                self._places.take(service_name)
                try:
                    process = await self._starts.run(session_id, start)
                finally:
                    self._places.give_back(service_name)
                # Nothing is awaited from here on: the place just given back is still free and nobody can cancel us.
                session = self._add(
                    session_id,
                    service_name,
                    process,
                    timeout=timeout,
                    metadata=metadata,
                    restored=restored,
                    created_at=created_at,
                    start_duration=time.monotonic() - began,
                    on_end=on_end,
                )
                return Opened(session, created=True)
        finally:
            if reserved is not None:
                reserved.give_back()

    def reserve(
        self,
        service_name: ServiceName,
        start: Callable[[], Awaitable[P]],
        take_back: Callable[[P], bool] = lambda _process: False,
    ) -> Reservation[P]:
        """Take a place and begin to start a process, for a session that may be opened soon; returns at once.

        Give it to ``open_session``, or give it back. A process that was not needed is offered to ``take_back``, and
        stopped unless that says that it has it.

        Raises:
            LimitReached: ``SessionLimit`` or ``ServiceSessionLimit``; nothing was started.
            ShuttingDown: The manager is leaving or has left.
        """
        self._refuse_when_leaving()
        self._places.check(service_name)

        def unused(process: P) -> None:
            if self._leaving or not take_back(process):
                self._stops.begin(SessionId(f"reserved {service_name}"), process)

        reservation = Reservation(service_name, start, self._places, unused=unused, over=self._reservations.discard)
        self._reservations.add(reservation)
        self._starting_ahead.add(reservation.starting)
        reservation.starting.add_done_callback(self._starting_ahead.discard)
        return reservation

    def get_session(self, session_id: SessionId) -> Session[P] | None:
        """Return the session and count a use; None if no usable session has this id.

        One that is overdue is ended by this. A dead one is ended as soon as its process has reported its exit, or after
        ``EXIT_NOTICE_TIMEOUT``, so that the event can name the cause.
        """
        session = self._sessions.get(session_id)
        if session is None or not self._usable(session):
            return None
        session.touch()
        return session

    def peek(self, session_id: SessionId) -> Session[P] | None:
        """Return the session without counting a use, even if it is dead or overdue."""
        return self._sessions.get(session_id)

    @property
    def sessions(self) -> Mapping[SessionId, Session[P]]:
        """A live, read-only view of the table, in order of creation."""
        return MappingProxyType(self._sessions)

    async def close_session(self, session_id: SessionId, reason: EndReason = EndReason.REQUESTED) -> bool:
        """End a session and wait until its process has stopped; True if this call ended it.

        One that is being opened is awaited and then closed. Of several closes at once one gets True, and all wait.
        Cancelling it does not undo the end: the process is stopped all the same.
        """
        async with self._turns.of(session_id):
            session = self._sessions.get(session_id)
            closed = session is not None and self._end(session, reason)
        await self._stops.wait(session_id)
        return closed

    def set_timeout(self, session_id: SessionId, timeout: float) -> Session[P] | None:
        """Set a session's idle timeout, at once and without a use of it. Returns None if there is no such session."""
        session = self._sessions.get(session_id)
        if session is not None:
            session.timeout = self._timeout(timeout)
            self._expiry.watch(session)
        return session

    def list_sessions(self) -> dict[SessionId, dict[str, Any]]:
        """Return the usable sessions by id, without counting a use. Times are ISO 8601 in UTC, durations in seconds."""
        return {
            session.session_id: {
                "service_name": session.service_name,
                "created_at": iso(session.created_at),
                "last_accessed": iso(session.last_accessed),
                "timeout": session.timeout,
                "metadata": session.metadata,
                "time_remaining": session.time_remaining,
            }
            for session in list(self._sessions.values())
            if self._usable(session)
        }

    def get_service_session_count(self, service_name: ServiceName) -> int:
        """Sessions of the service that are open and can be used. Looks at every session, which ``count`` does not."""
        sessions = (session for session in list(self._sessions.values()) if session.service_name == service_name)
        return sum(session.is_alive and not session.is_expired for session in sessions)

    def count(self, service_name: ServiceName | None = None) -> int:
        """Return the places taken, of one service or in all: sessions that are open, opening or reserved."""
        return self._places.count(service_name)

    @property
    def opening(self) -> int:
        """The number of sessions that are being opened now."""
        return len(self._starts)

    def _timeout(self, timeout: float | None) -> float:
        timeout = timeout or self.limits.default_timeout  # 0 is the default, as at SignalWire's
        if not timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, is {timeout}")
        return timeout

    def _refuse_when_leaving(self) -> None:
        if self._leaving:
            raise ShuttingDown("the worker is shutting down and opens no more sessions")

    def _usable(self, session: Session[P]) -> bool:
        if (reason := session.expired_because) is not None:
            self._end(session, reason)
            return False
        if not session.is_alive:
            self._presume_dead(session)
            return False
        return True

    async def _present(self, session_id: SessionId) -> Session[P] | None:
        session = self._sessions.get(session_id)
        if session is None or self._usable(session):
            return session
        await session.wait_ended()
        return None

    def _make_room(self, service_name: ServiceName, existing: Session[P] | None) -> None:
        """End the session to be replaced, unless its place would not be enough."""
        self._places.check(service_name, freed=existing.service_name if existing else None)
        if existing is not None:
            self._end(existing, EndReason.REPLACED)

    def _add(
        self,
        session_id: SessionId,
        service_name: ServiceName,
        process: P,
        *,
        timeout: float,
        metadata: Json | None,
        restored: bool,
        created_at: datetime | None,
        start_duration: float | None = None,
        on_end: Callable[[SessionEnded[P]], None] | None = None,
    ) -> Session[P]:
        session = Session(
            session_id,
            service_name,
            process,
            created_at or utc_now(),
            timeout=timeout,
            metadata=metadata or {},
            max_lifetime=self.limits.max_lifetime,
            restored=restored,
            record=ToolRecord(start_duration=start_duration),
            on_end=on_end,
        )
        self._sessions[session.session_id] = session
        self._places.take(session.service_name)
        self._expiry.watch(session)
        logger.info("session.created", extra=_about(session) | {"restored": session.restored})
        _tell(self._on_event, SessionCreated(session))
        session.process.on_exit(partial(self._on_exit, session))
        return session

    def _on_exit(self, session: Session[P], exit: ProcessExit) -> None:  # noqa: A002 - the field's name
        self._end(session, EndReason.PROCESS_EXIT, exit)

    def _end(self, session: Session[P], reason: EndReason, exit: ProcessExit | None = None) -> bool:  # noqa: A002 - the field's name
        """End a session; no other code removes one. Return False if it had already ended."""
        if self._sessions.get(session.session_id) is not session:
            return False
        del self._sessions[session.session_id]
        self._places.give_back(session.service_name)
        self._expiry.forget(session)
        if (timer := self._dying.pop(session, None)) is not None:
            timer.cancel()
        session.mark_ended(reason, exit)
        self._stops.begin(session.session_id, session.process)
        how = {} if exit is None else {"exit_code": exit.exit_code, "signal": exit.signal}
        logger.info("session.ended", extra=_about(session) | {"reason": reason.value} | how)
        ended = SessionEnded(session, reason, exit)
        _tell(session.on_end, ended)
        _tell(self._on_event, ended)
        return True

    def _presume_dead(self, session: Session[P]) -> None:
        """Wait for the exit notice of a dead process. End its session without the notice if it does not come."""
        if session not in self._dying and not session.has_ended:
            loop = asyncio.get_running_loop()
            self._dying[session] = loop.call_later(EXIT_NOTICE_TIMEOUT, self._end, session, EndReason.PROCESS_EXIT)

    def _sweep(self) -> None:
        for session in self._sessions.values():
            if not session.is_alive:
                self._presume_dead(session)


def _about(session: Session[Any]) -> Json:
    """Return the fields that describe a session in a log line."""
    return {
        "call_id": call_id_of(session.session_id),
        "session_id": session.session_id,
        "service": session.service_name,
    }


def _tell(callback: Callable[[E], None] | None, event: E) -> None:
    if callback is None:
        return
    try:
        callback(event)
    except Exception:
        logger.exception("session.event_callback_failed", extra=_about(event.session))
