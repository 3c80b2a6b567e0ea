"""The sessions that a call should have. Pure."""

from dataclasses import dataclass, field
from datetime import datetime

from consumer.calls.routes import CALL_KEY, Plan
from schemas.base import Json
from schemas.calls import CallEvent
from schemas.ids import ServiceName, SessionId, session_id_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """A session that should be open. If ``timeout`` (s) is None, the service's or the worker's applies."""

    session_id: SessionId
    service_name: ServiceName
    timeout: float | None = None
    metadata: Json = field(default_factory=dict)
    restored: bool = False
    created_at: datetime | None = None


def wanted_by(event: CallEvent, chosen: Plan) -> list[Wanted]:
    """Return the sessions of a starting call. Each has the event as ``metadata.call``."""
    metadata = {**chosen.metadata, CALL_KEY: event.model_dump(mode="json")}
    return [
        Wanted(session_id_of(event.call_id, service, first=not index), service, chosen.timeout, metadata)
        for index, service in enumerate(chosen.services)
    ]
