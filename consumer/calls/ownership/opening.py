"""Opening sessions: from a plan, a command or a recipe to processes that run."""

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from typing import Literal, cast

from pydantic_core import to_json

from consumer.calls.context import Context, Starter, ToolProcess
from consumer.calls.ownership.owned_calls import CallSession, OwnedCall
from consumer.calls.wanted import Wanted
from consumer.observability import metrics, tracing
from consumer.sessions import SessionManager
from schemas.base import Json
from schemas.errors import InvalidMessage, SessionsError
from schemas.ids import ServiceName
from schemas.internal import MAX_RECIPE

BESIDE_METADATA = 1024
"""Bytes of a session in a recipe that are not its metadata, at most."""

IfExists = Literal["replace", "keep", "reject"]


def _weight(metadata: Json) -> int:
    return len(to_json(metadata)) + BESIDE_METADATA


async def _refused(wanted: Wanted, weight: int, room: int) -> InvalidMessage:
    problem = f"metadata of {weight} bytes is too much for {wanted.session_id!r}: its call has room for {max(0, room)}"
    return InvalidMessage(problem, size=weight, limit=max(0, room))


class Opening:
    """Opens sessions, those of one call at once."""

    def __init__(self, context: Context, sessions: SessionManager[ToolProcess], start: Starter) -> None:
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
        room = MAX_RECIPE - sum(_weight(session.metadata) for session in beside)
        opening: list[Awaitable[CallSession | SessionsError]] = []
        for one in wanted:
            weight = _weight(one.metadata)
            if weight > room:
                opening.append(_refused(one, weight, room))
            else:
                room -= weight
                opening.append(self._open(call, one, cast("IfExists", if_exists)))
        return list(await asyncio.gather(*opening))

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
