"""Opening sessions: from a plan, a command or a recipe to processes that run."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Literal, cast

from consumer.calls.context import Context, Starter, ToolProcess
from consumer.calls.holdings import CallSession
from consumer.calls.routes import Plan
from consumer.observability import metrics, tracing
from consumer.sessions import SessionManager
from schemas.base import Json
from schemas.calls import CallEvent
from schemas.errors import SessionsError
from schemas.ids import ServiceName, SessionId, session_id_of

IfExists = Literal["replace", "keep", "reject"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A session that shall be open; ``timeout`` (s) None takes the service's, then the worker's."""

    session_id: SessionId
    service_name: ServiceName
    timeout: float | None = None
    metadata: Json = field(default_factory=dict)
    restored: bool = False
    created_at: datetime | None = None


def wanted_by(event: CallEvent, chosen: Plan) -> list[Wanted]:
    """The sessions of a starting call; each carries the event as ``metadata.call``."""
    metadata = {**chosen.metadata, "call": event.model_dump(mode="json")}
    return [
        Wanted(session_id_of(event.call_id, service, first=not index), service, chosen.timeout, metadata)
        for index, service in enumerate(chosen.services)
    ]


class Opening:
    """Opens sessions, those of one call at once."""

    def __init__(self, context: Context, sessions: SessionManager[ToolProcess], start: Starter) -> None:
        self._context = context
        self._sessions = sessions
        self._start = start

    async def open_all(self, wanted: list[Wanted], *, if_exists: str) -> list[CallSession | SessionsError]:
        """Open all, or as many as can be: the result has a session or an error for each."""
        return list(await asyncio.gather(*(self._open(one, cast("IfExists", if_exists)) for one in wanted)))

    async def _open(self, wanted: Wanted, if_exists: IfExists) -> CallSession | SessionsError:
        try:
            service = self._context.service(wanted.service_name)
            opened = await self._sessions.open_session(
                wanted.session_id,
                wanted.service_name,
                partial(self._started, wanted.service_name),
                wanted.timeout or service.timeout,
                wanted.metadata,
                if_exists=if_exists,
                restored=wanted.restored,
                created_at=wanted.created_at,
            )
        except SessionsError as error:
            return error
        if opened.created:
            opened.session.record.start_kind = opened.session.process.start_kind
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
