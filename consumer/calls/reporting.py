"""Telling the world: session info, events, and the outbox that they leave through."""

import hashlib
from datetime import datetime
from typing import Any

from consumer.broker.message import Message
from consumer.broker.outbox import Outbox
from consumer.broker.topology import Names
from consumer.sessions import Session
from schemas.base import Json
from schemas.errors import SessionsError
from schemas.events import (
    CONTENT_TYPE,
    CloudEvent,
    EndReason,
    SessionEventType,
    WorkerEventType,
    session_event,
    source_of,
    worker_event,
)
from schemas.ids import CallId, ServiceName, SessionId, WorkerId, call_id_of
from schemas.internal import Recipe
from schemas.sessions import SessionInfo


def session_info(worker_id: WorkerId, session: Session[Any]) -> SessionInfo:
    """A session of ours as the world sees it. Built without validation: every part of it is ours."""
    return SessionInfo.model_construct(
        session_id=session.session_id,
        call_id=call_id_of(session.session_id),
        service_name=session.service_name,
        worker_id=worker_id,
        created_at=session.created_at,
        last_accessed=session.last_accessed,
        timeout=session.timeout,
        time_remaining=round(session.time_remaining, 3),
        metadata=session.metadata,
        is_alive=session.is_alive,
        is_expired=session.is_expired,
        restored=session.restored,
    )


def life_event_id(
    what: SessionEventType, worker_id: WorkerId, session_id: SessionId, created_at: datetime, restores: int
) -> str:
    """The id of an event of one life of a session that several workers may tell: the same, whoever tells it."""
    life = "\0".join((what.value, worker_id, session_id, created_at.isoformat(), str(restores)))
    return hashlib.sha256(life.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Reporter:
    """Publishes what happened to sessions, in order."""

    def __init__(self, worker_id: WorkerId, names: Names, outbox: Outbox) -> None:
        self._worker_id = worker_id
        self._names = names
        self._outbox = outbox

    def _publish(self, event: CloudEvent, routing_key: str) -> None:
        message = Message(
            body=event.dump(), type=event.type, message_id=event.id, content_type=CONTENT_TYPE, timestamp=event.time
        )
        self._outbox.put(message, self._names.events, routing_key)

    def _publish_session(self, what: SessionEventType, event: CloudEvent, service: ServiceName) -> None:
        self._publish(event, f"session.{what.value}.{service}")

    async def settled(self) -> None:
        """Wait until the broker has everything that was told so far."""
        await self._outbox.settled()

    def created(self, session: Session[Any], restores: int) -> None:
        """A session is open."""
        self._created(session_info(self._worker_id, session), restores)

    def _created(self, info: SessionInfo, restores: int) -> None:
        what = SessionEventType.CREATED
        event = session_event(info.worker_id, what, info)
        named = life_event_id(what, info.worker_id, info.session_id, info.created_at, restores)
        self._publish_session(what, event.model_copy(update={"id": named}), ServiceName(info.service_name))

    def ended(self, session: Session[Any], reason: EndReason, details: Json) -> None:
        """A session is over: the one terminal event of its life."""
        what = reason.event_type
        info = session_info(self._worker_id, session)
        event = session_event(self._worker_id, what, info, reason=reason.value, **details)
        self._publish_session(what, event, ServiceName(session.service_name))

    def lost(self, recipe: Recipe, reason: EndReason, *, untold: bool) -> None:
        """A worker has gone with the sessions of a recipe, for the first time or (``CRASH_LOOP``) once too often.

        ``untold``: it may have gone before it told that they were open, so this is told again, under the same id.
        """
        for one in recipe.sessions:
            info = SessionInfo(
                session_id=one.session_id,
                call_id=recipe.call_id,
                service_name=one.service_name,
                worker_id=recipe.worker_id,
                created_at=one.created_at,
                last_accessed=one.last_accessed,
                timeout=one.timeout,
                time_remaining=0.0,
                metadata=one.metadata,
                is_alive=False,
                is_expired=False,
                restored=one.restores > 0,
            )
            if untold:
                self._created(info, one.restores)
            what = reason.event_type
            event = session_event(self._worker_id, what, info, reason=reason.value)
            named = life_event_id(SessionEventType.LOST, recipe.worker_id, one.session_id, one.created_at, one.restores)
            self._publish_session(what, event.model_copy(update={"id": named}), one.service_name)

    def rejected(
        self, call_id: CallId, session_id: SessionId, service: ServiceName, error: SessionsError, metadata: Json
    ) -> None:
        """A start could not be served; there is no session."""
        event = CloudEvent(
            source=source_of(self._worker_id),
            type=f"mcp.session.{SessionEventType.REJECTED.value}",
            subject=session_id,
            data={
                "session_id": session_id,
                "call_id": call_id,
                "service_name": service,
                "worker_id": self._worker_id,
                "metadata": metadata,
                "reason": error.code.value,
                "code": error.code.value,
                "message": error.message,
                "details": error.details,
            },
        )
        self._publish_session(SessionEventType.REJECTED, event, service)

    def worker(self, what: WorkerEventType, **data: object) -> None:
        """What this worker does."""
        self._publish(worker_event(self._worker_id, what, **data), f"worker.{what}")
