"""The session of a request: found, opened for the request, or opened anew if it died during the request."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from consumer.calls.context import Configured, Service
from consumer.calls.messages.deadlines import too_late
from consumer.calls.messages.parsing import names_session_of, no_session, service_named_by
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.wanted import Wanted
from schemas.errors import SessionDied, SessionExists, SessionNotFound
from schemas.ids import ServiceName, SessionId, session_id_of
from schemas.requests import CallRequest, MayOpen

DEATH_NOTICE = 5.0
"""How long (s) the session core may take to notice a death that a tool call has noticed."""


class SessionOpener(Protocol):
    """Opens a session of a call on the call's lane. The owner of the call implements it."""

    async def open_for(
        self, call: OwnedCall, request: MayOpen, wanted: Wanted, deadline: float, *, undecided: bool
    ) -> CallSession:
        """Return the session that the request means, or open the ``wanted`` one now.

        With ``undecided``, a later start of the call sets the timeout of the session.

        Raises:
            DeadlineExceeded: the ``deadline`` (monotonic clock) had passed before the lane was free; nothing is opened.
            SessionNotFound: the call has ended, or this worker gives it away.
            SessionsError: the session could not be opened.
        """
        ...


def find(call: OwnedCall, request: CallRequest) -> CallSession | None:
    """Find the session of a request: by its id, or by its service name within the call.

    An id of no session finds nothing by the service's name, unless it is one that the call gives to that service.
    """
    service = service_named_by(request)
    session = call.sessions.get(SessionId(request.session_id))
    if service is None or (session is not None and session.service_name == service):
        return session
    if session is None and not names_session_of(request, service):
        return None
    return next((one for one in call.sessions.values() if one.service_name == service), None)


def missing(call: OwnedCall, request: CallRequest) -> SessionNotFound:
    """The error for a request whose session the call does not have; it says what happened to it, if that is known."""
    died = call.died.get(SessionId(request.session_id))
    return no_session(request, ended=call.tenure.has_ended, died=died)


class SessionFor:
    """Finds the session of a request, or has it opened before ``deadline`` (monotonic clock)."""

    def __init__(self, opener: SessionOpener, configured: Configured) -> None:
        self._opener = opener
        self._configured = configured

    async def ensure(
        self, call: OwnedCall, request: MayOpen, deadline: float, check: Callable[[Service], None] = lambda _: None
    ) -> CallSession:
        """Return the session that a request means. It is opened if there is none and the request names its service.

        ``check`` gets the service before a session is opened on it, and raises if the request would be refused then.

        Raises:
            SessionNotFound: there is none, and the request does not ask to open one, or its id cannot be that of the
                call's session on that service.
            ServiceNotFound, ServiceDisabled: none can be opened on that service.
            SessionExists: the id belongs to a session on another service, and the request wants it alone.
            DeadlineExceeded: the session was not open in time. If its start had begun by then, it goes on.
        """
        if (session := find(call, request)) is not None:
            return session
        if request.service_name is not None and not call.tenure.has_ended:
            self._configured.service(request.service_name)  # first: nobody means a service that is not there
        if request.opens is None or call.tenure.has_ended:
            raise missing(call, request)
        if SessionId(request.session_id) not in call.sessions and not names_session_of(request, request.opens):
            raise missing(call, request)
        check(self._configured.service(request.opens))
        return await self._open(call, request, _wanted(call, request, request.opens), deadline, undecided=True)

    async def replacement(self, call: OwnedCall, request: MayOpen, died: CallSession, deadline: float) -> CallSession:
        """Return a new session in place of one that died during a request, with its service and its metadata.

        Raises:
            SessionNotFound: the call has ended.
            SessionDied: the dead session has not been closed yet; a later request may succeed.
            DeadlineExceeded: the session was not open in time.
        """
        await _wait_ended(died)
        if (session := find(call, request)) is not None:
            return session
        if call.tenure.has_ended:
            raise missing(call, request)
        wanted = Wanted(died.session_id, died.service_name, died.timeout, died.metadata)
        return await self._open(call, request, wanted, deadline, undecided=False)

    async def _open(
        self, call: OwnedCall, request: MayOpen, wanted: Wanted, deadline: float, *, undecided: bool
    ) -> CallSession:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._opener.open_for(call, request, wanted, deadline, undecided=undecided)
        except TimeoutError:
            raise too_late(request, call.starting.services) from None


def _wanted(call: OwnedCall, request: MayOpen, service: ServiceName) -> Wanted:
    taken = call.sessions.get(SessionId(request.session_id))
    if taken is not None and request.open == "alone":
        told = (
            f"session {request.session_id!r} is on service {taken.service_name!r}, not {service!r}: "
            f"name that service, or another session_id"
        )
        raise SessionExists(told, session_id=request.session_id, service_name=taken.service_name)
    own = session_id_of(call.call_id, service, first=False) if taken is not None else SessionId(request.session_id)
    return Wanted(own, service, request.session_timeout, request.session_metadata or {})


async def _wait_ended(session: CallSession) -> None:
    try:
        async with asyncio.timeout(DEATH_NOTICE):
            await session.wait_ended()
    except TimeoutError:
        died = f"session {session.session_id!r} no longer responds, and has not been replaced yet; try again"
        raise SessionDied(died, exit_code=None, signal=None, stderr="") from None
