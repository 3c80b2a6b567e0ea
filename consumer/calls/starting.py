"""The servers of a call that are starting, and the ends that wait behind them on the call's lane."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from schemas.errors import SessionNotFound
from schemas.ids import ServiceName, SessionId

log = structlog.get_logger(__name__)

CUT_OFF_AFTER = 5.0
"""How long (s) a server may take to start while the end of its session waits. Servers that work take less."""


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    session_id: SessionId
    service: ServiceName
    began: float
    bound: asyncio.Timeout


class Starting:
    """The running starts of one call. An end that waits behind a start gives it ``CUT_OFF_AFTER`` seconds in all."""

    def __init__(self) -> None:
        self._running: list[_Start] = []
        self._ends: list[SessionId | None] = []

    @property
    def services(self) -> list[ServiceName]:
        """The services whose servers are starting."""
        return [one.service for one in self._running]

    @asynccontextmanager
    async def noted(self, session_id: SessionId, service: ServiceName) -> AsyncIterator[None]:
        """Note within this block that a server is starting for a session.

        Raises:
            SessionNotFound: the session was to end, and its server took too long. The block was cancelled.
        """
        bound = asyncio.timeout(None)
        one = _Start(session_id, service, asyncio.get_running_loop().time(), bound)
        try:
            async with bound:
                self._running.append(one)
                self._hurry(one)
                try:
                    yield
                finally:
                    self._running.remove(one)
        except TimeoutError:
            if not bound.expired():
                raise
            log.info("session.start_cut_off", session_id=session_id, service=service)
            told = f"session {session_id!r} was closed, or its call ended, while its server was starting"
            raise SessionNotFound(told, session_id=session_id) from None

    def end_waits(self, session_id: SessionId | None) -> Callable[[], None]:
        """Note that the end of a session waits, or of all with ``None``. Call the result when it is its turn."""
        self._ends.append(session_id)
        for one in self._running:
            self._hurry(one)
        return partial(self._ends.remove, session_id)

    def _hurry(self, one: _Start) -> None:
        if any(ends in (None, one.session_id) for ends in self._ends):
            one.bound.reschedule(one.began + CUT_OFF_AFTER)
