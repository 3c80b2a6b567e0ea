"""Opening sessions: from a plan, a command or a recipe to processes that run."""

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from typing import Literal, cast

from consumer.calls.context import Context, Starter, ToolProcess
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.ownership.kept_metadata import BESIDE_METADATA, KeptMetadata, weight_of
from consumer.calls.wanted import Wanted
from consumer.observability import metrics, tracing
from consumer.sessions import SessionManager
from schemas.errors import Capacity, InvalidMessage, SessionsError
from schemas.ids import ServiceName
from schemas.internal import MAX_RECIPE

IfExists = Literal["replace", "keep", "reject"]


async def _refused(wanted: Wanted, weight: int, limit: int, whose: str) -> InvalidMessage:
    problem = f"metadata of {weight} bytes is too much for {wanted.session_id!r}: {whose} {limit}"
    return InvalidMessage(problem, size=weight, limit=limit)


class Opening:
    """Opens sessions, those of one call at once."""

    def __init__(
        self, context: Context, sessions: SessionManager[ToolProcess], start: Starter, kept: KeptMetadata
    ) -> None:
        self._kept = kept
        self._context = context
        self._sessions = sessions
        self._start = start

    async def open_all(
        self, call: OwnedCall, wanted: list[Wanted], *, if_exists: str
    ) -> list[CallSession | SessionsError]:
        """Open all, or as many as can be: the result has a session or an error for each.

        One recipe must hold them all, and the sessions that the call has already.
        """
        names = {one.session_id for one in wanted}
        beside = [session for session in call.sessions.values() if session.session_id not in names]
        room = MAX_RECIPE - sum(weight_of(session.metadata) for session in beside)
        opening: list[Awaitable[CallSession | SessionsError]] = []
        for one in wanted:
            weight = weight_of(one.metadata)
            limit = self._context.bounds.max_metadata + BESIDE_METADATA
            if weight > limit and not one.restored:
                opening.append(_refused(one, weight, limit, "a session may have (session.max_metadata)"))
            elif weight > room:
                opening.append(_refused(one, weight, max(0, room), "its call has room for"))
            else:
                room -= weight
                opening.append(self._weighed(call, one, weight, cast("IfExists", if_exists)))
        return list(await asyncio.gather(*opening))

    async def _weighed(
        self, call: OwnedCall, wanted: Wanted, weight: int, if_exists: IfExists
    ) -> CallSession | SessionsError:
        try:
            with self._kept.reserved(weight):
                opened = await self._open(call, wanted, if_exists)
        except Capacity as error:
            return error
        if not isinstance(opened, SessionsError):
            self._kept.keep(opened)
        return opened

    async def _open(self, call: OwnedCall, wanted: Wanted, if_exists: IfExists) -> CallSession | SessionsError:
        try:
            service = self._context.service(wanted.service_name)
            reserved = call.rings.reserved(wanted.service_name) if call.rings is not None else None
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
            )
        except SessionsError as error:
            return error
        if opened.created:
            kept = reserved is not None and reserved.kept
            opened.session.record.start_kind = "reserved" if kept else opened.session.process.start_kind
        return opened.session

    async def _started(self, service: ServiceName) -> ToolProcess:
        began = time.monotonic()
        with tracing.span(f"start {service}") as span:
            try:
                process = await self._start(service)
            except SessionsError as error:  # one that waited, or was to be forked and could not be, does not fail
                metrics.of(metrics.STARTS, service, "cold", error.code.value.lower()).inc()
                tracing.failed(span, error.code.value.lower(), error.message)
                raise
            span.set_attribute("mcp_sessions.start_kind", process.start_kind)
        metrics.of(metrics.STARTS, service, process.start_kind, "ok").inc()
        metrics.of(metrics.START, service, process.start_kind).observe(time.monotonic() - began)
        return process
