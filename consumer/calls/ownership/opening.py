"""Opens sessions for a plan, a command or a recipe, and handles their ends."""

import asyncio
import time
from collections.abc import Awaitable
from functools import partial

import structlog

from consumer.broker.errors import BrokerError
from consumer.calls.cluster.statistics import Figures
from consumer.calls.context import Configured, Starter, ToolProcess
from consumer.calls.events import Reporter
from consumer.calls.news import News
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.ownership.kept_metadata import BESIDE_METADATA, KeptMetadata, weight_of
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.calls.ownership.recovery import Recovery
from consumer.calls.requests.binding_text import below_telephony
from consumer.calls.wanted import Wanted
from consumer.observability import metrics, tracing
from consumer.sessions import IfExists, SessionEnded, SessionManager
from schemas.base import Json
from schemas.errors import (
    Capacity,
    InvalidMessage,
    LimitReached,
    SessionExists,
    SessionNotFound,
    SessionsError,
    StartFailed,
    StartTimeout,
)
from schemas.ids import ServiceName
from schemas.internal import MAX_RECIPE
from schemas.requests import SessionCreate

log = structlog.get_logger(__name__)


async def _refused(wanted: Wanted, max_weight: int, whose: str) -> InvalidMessage:
    size = weight_of(wanted.metadata) - BESIDE_METADATA
    limit = max(0, max_weight - BESIDE_METADATA)
    problem = f"the metadata of {wanted.session_id!r} has {size} bytes; {whose} {limit}"
    return InvalidMessage(problem, size=size, limit=limit)


class Opening:
    """Opens sessions, those of one call in parallel. Each belongs to its call from then on until it ends."""

    def __init__(
        self,
        sessions: SessionManager[ToolProcess],
        start: Starter,
        owned_calls: OwnedCalls,
        recovery: Recovery,
        *,
        kept_metadata: KeptMetadata,
        configured: Configured,
        reporter: Reporter,
        news: News,
        figures: Figures,
    ) -> None:
        self._sessions = sessions
        self._start = start
        self._owned_calls = owned_calls
        self._recovery = recovery
        self._kept_metadata = kept_metadata
        self._configured = configured
        self._reporter = reporter
        self._news = news
        self._figures = figures

    async def open_all(
        self, call: OwnedCall, wanted: list[Wanted], *, if_exists: IfExists, fails_alone: bool = False
    ) -> list[CallSession | SessionsError]:
        """Open all, or as many as can be: the result has a session or an error for each.

        A session that could not be opened is rejected with an event. With ``fails_alone``, neither a limit nor
        metadata that is too large causes an event. A request for a session that is already open gets an error, but
        causes no event, and neither does a start that was cut off by the session's end.

        Raises:
            LimitReached: the call has no session, and limits allow none of these.
        """
        # Both bindings exist before the session is reported.
        bound, results = await asyncio.gather(
            self._owned_calls.bind_requests(call),
            self._open_as_many_as_fit(call, wanted, if_exists),
            return_exceptions=True,
        )
        if isinstance(results, BaseException):
            raise results
        if isinstance(bound, BrokerError):
            log.info("owner.binding_later", call_id=call.call_id, error=str(bound))
        elif isinstance(bound, BaseException):
            raise bound
        refusals = [result for result in results if isinstance(result, SessionsError)]
        if not call.sessions and refusals and all(isinstance(refusal, LimitReached) for refusal in refusals):
            raise refusals[0]
        silent: tuple[type[SessionsError], ...] = (SessionExists, SessionNotFound)
        if fails_alone:
            silent = (*silent, LimitReached, InvalidMessage)
        for one, result in zip(wanted, results, strict=True):
            if isinstance(result, SessionsError) and not isinstance(result, silent):
                too_large = weight_of(one.metadata) > self._kept_metadata.max_weight
                metadata = {} if too_large else one.metadata
                self._reporter.rejected(call.call_id, one.session_id, one.service_name, result, metadata)
                call.events.published_rejection()
        return results

    def unanswered(self, call: OwnedCall, request: SessionCreate, error: SessionsError) -> None:
        """Publish that a ``session.create`` without a reply address was refused."""
        self._reporter.unanswered(request, error)
        call.events.published_rejection()

    def adopt(self, call: OwnedCall, wanted: Wanted) -> bool:
        """Return whether the call has a session on that service.

        If so, the start takes it over, with its route's timeout.

        The event and the route's metadata replace the old metadata. A timeout that a request has set stays.
        """
        session = next((one for one in call.sessions.values() if one.service_name == wanted.service_name), None)
        if session is None:
            return False
        if wanted.timeout is not None and session.session_id in call.undecided:
            self._sessions.set_timeout(session.session_id, wanted.timeout)
        metadata = below_telephony(session.metadata, wanted.metadata)
        weight = weight_of(metadata)
        if weight > self._kept_metadata.max_weight:
            log.warning("session.metadata_too_large", session_id=session.session_id, size=weight)
        else:
            session.metadata = metadata
            self._kept_metadata.keep(session)
        call.recipe.outdate()
        return True

    async def _open_as_many_as_fit(
        self, call: OwnedCall, wanted: list[Wanted], if_exists: IfExists
    ) -> list[CallSession | SessionsError]:
        """Open as many sessions as one recipe can hold, beside those that the call already has."""
        names = {one.session_id for one in wanted}
        beside = [session for session in call.sessions.values() if session.session_id not in names]
        room = MAX_RECIPE - sum(weight_of(session.metadata) for session in beside)
        opening: list[Awaitable[CallSession | SessionsError]] = []
        for one in wanted:
            weight = weight_of(one.metadata)
            limit = self._kept_metadata.max_weight
            if weight > limit and not one.restored:
                opening.append(_refused(one, limit, "a session can have (session.max_metadata)"))
            elif weight > room:
                opening.append(_refused(one, room, "its call has room for"))
            else:
                room -= weight
                opening.append(self._weighed(call, one, weight, if_exists))
        return list(await asyncio.gather(*opening))

    async def _weighed(
        self, call: OwnedCall, wanted: Wanted, weight: int, if_exists: IfExists
    ) -> CallSession | SessionsError:
        try:
            with self._kept_metadata.reserved(weight):
                opened = await self._open(call, wanted, if_exists)
        except Capacity as error:
            return error
        if not isinstance(opened, SessionsError):
            self._kept_metadata.keep(opened)
        return opened

    async def _open(self, call: OwnedCall, wanted: Wanted, if_exists: IfExists) -> CallSession | SessionsError:
        ringing = call.tenure.ringing
        try:
            service = self._configured.service(wanted.service_name)
            reserved = ringing.reserved(wanted.service_name) if ringing is not None else None
            async with call.starting.noted(wanted.session_id, wanted.service_name):
                opened = await self._sessions.open_session(
                    wanted.session_id,
                    wanted.service_name,
                    partial(self._started, wanted.service_name),
                    wanted.timeout or service.timeout,
                    wanted.metadata,
                    if_exists=if_exists,
                    restored=wanted.restored,
                    created_at=wanted.created_at,
                    reserved=reserved,
                    on_end=partial(self._ended, call),
                )
        except SessionsError as error:
            return error
        session = opened.session
        if opened.created:
            call.enter(session)
            self._figures.started()
            self._news.follow(session)
            kept = reserved is not None and reserved.kept
            session.record.start_kind = "reserved" if kept else session.process.start_kind
        return session

    async def _started(self, service: ServiceName) -> ToolProcess:
        began = time.monotonic()
        with tracing.span(f"start {service}") as span:
            try:
                process = await self._start(service)
            except SessionsError as error:  # one that waited, or was to be forked and could not be, does not fail
                if isinstance(error, StartFailed | StartTimeout):
                    self._figures.start_failed(service, error)
                metrics.of(metrics.STARTS, service, "cold", error.code.value.lower()).inc()
                tracing.failed(span, error.code.value.lower(), error.message)
                raise
            span.set_attribute("mcp_sessions.start_kind", process.start_kind)
        self._figures.start_worked(service)
        metrics.of(metrics.STARTS, service, process.start_kind, "ok").inc()
        metrics.of(metrics.START, service, process.start_kind).observe(time.monotonic() - began)
        return process

    def _ended(self, call: OwnedCall, end: SessionEnded[ToolProcess]) -> None:
        """Report the end of a session, or keep the event until it is known which worker reports it."""
        session = end.session
        self._figures.ended()
        self._kept_metadata.forget(session)
        details: Json = {"tools": session.record.summary()}
        if end.exit is not None:
            details |= end.exit.details
        if call.events.was_untold(session):
            call.events.postpone(session.life, self._reporter.created(session), ended=session)
        call.events.postpone(session.life, self._reporter.ended(session, end.reason, details), ended=session)
        was_there = call.leave(session)
        if self._owned_calls.is_ours(call):
            self._recovery.tell_ends_soon(call)
        else:
            self._owned_calls.leave_to_placer(call)
        if was_there:
            self._recovery.keep_later(call.call_id)
