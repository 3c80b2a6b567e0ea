"""Events of sessions and workers: made here, and published through the outbox."""

import time
from collections.abc import Collection
from typing import Any

import structlog

from consumer.broker.message import Message
from consumer.broker.outbox import Outbox
from consumer.broker.topology import Names
from consumer.observability import metrics, tracing
from consumer.sessions import Session
from schemas.base import Json, iso
from schemas.errors import DeadlineExceeded, InvalidMessage, ServiceDisabled, ServiceNotFound, SessionsError
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
from schemas.ids import CallId, ServiceName, SessionId, WorkerId
from schemas.internal import Recipe
from schemas.requests import SessionCreate
from schemas.sessions import SessionInfo

log = structlog.get_logger(__name__)


def session_info(worker_id: WorkerId, session: Session[Any]) -> Json:
    """Return a session in the form of ``SessionInfo``, without making the model, because lists have many."""
    return {
        "session_id": session.session_id,
        "call_id": session.call_id,
        "service_name": session.service_name,
        "worker_id": worker_id,
        "created_at": iso(session.created_at),
        "last_accessed": iso(session.last_accessed),
        "timeout": session.timeout,
        "time_remaining": round(session.time_remaining, 3),
        "metadata": session.metadata,
        "is_alive": session.is_alive,
        "is_expired": session.is_expired,
        "restored": session.restored,
    }


def published(message: Message, seconds: float) -> None:
    """Count an event that the broker has confirmed, ``seconds`` after it happened."""
    if message.content_type == CONTENT_TYPE:  # recipes leave through the same outbox
        metrics.of(metrics.EVENTS_PUBLISHED, message.type or metrics.OTHER).inc()
        metrics.EVENT_DELAY.observe(seconds)


class Reporter:
    """Publishes the events of sessions, in order."""

    def __init__(self, worker_id: WorkerId, names: Names, outbox: Outbox) -> None:
        self._worker_id = worker_id
        self._names = names
        self._outbox = outbox

    def _publish(self, event: CloudEvent, routing_key: str) -> None:
        message = Message(
            body=event.dump(),
            type=event.type,
            message_id=event.id,
            headers=tracing.carrier(),
            content_type=CONTENT_TYPE,
            timestamp=event.time,
        )
        self._outbox.put(message, self._names.events, routing_key)

    def publish(self, event: CloudEvent) -> None:
        """Queue an event of a session. Events are published in order."""
        what = event.type.removeprefix("mcp.")
        self._publish(event, f"{what}.{event.data['service_name']}")

    def keep(self, message: Message, queue: str) -> None:
        """Put a message into a queue, in order with the events.

        Neighbouring messages leave through the same socket, one right behind the other. So a worker that is killed has
        almost always sent both or neither.
        """
        self._outbox.put(message.with_headers(tracing.carrier()), "", queue)

    def take_back(self, event_ids: Collection[str]) -> set[str]:
        """Stop publishing these events. Return the ids of those that the broker has not confirmed."""
        return self._outbox.take_back(event_ids)

    def never_sent(self, message_ids: Collection[str]) -> set[str]:
        """Return the ids of those messages that the broker cannot have. It gets them with the next link."""
        return self._outbox.never_sent(message_ids)

    async def settled(self) -> None:
        """Wait until the broker has confirmed every event so far."""
        await self._outbox.settled()

    def created(self, session: Session[Any]) -> CloudEvent:
        """Return the ``created`` event of a session; it says if the session was restored."""
        metrics.of(metrics.CREATED, session.service_name, str(session.restored).lower()).inc()
        info = session_info(self._worker_id, session)
        return session_event(SessionEventType.CREATED, info, session.life)

    def ended(self, session: Session[Any], reason: EndReason, details: Json) -> CloudEvent:
        """Return the terminal event of a session that ends now."""
        metrics.of(metrics.ENDED, session.service_name, reason.value).inc()
        if reason.event_type is SessionEventType.EXPIRED:
            metrics.EXPIRY_LATENESS.observe(max(0.0, time.monotonic() - session.deadline))
        info = session_info(self._worker_id, session)
        return session_event(reason.event_type, info, session.life, reason=reason.value, **details)

    def lost_life(self, session: Session[Any]) -> CloudEvent:
        """Return the terminal event of a life whose recipe does not come back. The session goes on with a new life."""
        info = session_info(self._worker_id, session)
        reason = EndReason.WORKER_GONE
        return session_event(reason.event_type, info, session.life, reason=reason.value)

    def lost(self, recipe: Recipe, reason: EndReason, *, restored: list[bool], told: bool) -> None:
        """Report the sessions of a dead worker's recipe as lost: ``WORKER_GONE``, or ``CRASH_LOOP`` for the last time.

        ``restored`` says of each session, in the recipe's order, whether it is restored. Unless the ``created`` of the
        sessions is known to be published (``told``), it is published first, because only a created session can be lost.
        """
        for one, is_restored in zip(recipe.sessions, restored, strict=True):
            if reason.event_type is SessionEventType.LOST:
                metrics.of(metrics.LOST, one.service_name).inc()
            else:
                metrics.of(metrics.ENDED, one.service_name, reason.value).inc()
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
                restored=is_restored,
            ).model_dump(mode="json")
            if not told:
                begun = info | {"is_alive": True, "time_remaining": one.timeout}
                created = session_event(SessionEventType.CREATED, begun, one.life)
                self.publish(created.model_copy(update={"time": one.last_accessed}))
            self.publish(session_event(reason.event_type, info, one.life, reason=reason.value))

    def rejected(
        self, call_id: CallId, session_id: SessionId, service: ServiceName, error: SessionsError, metadata: Json
    ) -> None:
        """Publish that a start was rejected, so that there is no session. The log line has the same text."""
        metrics.of(metrics.REJECTED, error.code.value.lower()).inc()
        ending = {key: error.details[key] for key in ("exit_code", "signal") if error.details.get(key) is not None}
        log.warning(
            "session.rejected",
            call_id=call_id,
            session_id=session_id,
            service=service,
            code=error.code.value,
            message=error.message,
            **ending,
        )
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
        self.publish(event)

    def unanswered(self, request: SessionCreate, error: SessionsError) -> None:
        """Publish that a ``session.create`` without a reply address was refused, unless another event says so.

        A limit or a failed start has its own event. If the session is open, or was opened before and has ended, nothing
        is missing.
        """
        if isinstance(error, ServiceNotFound | ServiceDisabled | DeadlineExceeded | InvalidMessage):
            session_id = SessionId(request.session_id)
            self.rejected(request.call_id, session_id, request.service_name, error, request.metadata or {})

    def changed(self, session: Session[Any], what: SessionEventType, which: str) -> None:
        """Publish that a session's server reports a change: of a resource (its URI), or of one of its lists."""
        name = "uri" if what is SessionEventType.RESOURCE_UPDATED else "list"
        event = CloudEvent(
            source=source_of(self._worker_id),
            type=f"mcp.session.{what.value}",
            subject=session.session_id,
            data={
                "session_id": session.session_id,
                "call_id": session.call_id,
                "service_name": session.service_name,
                "worker_id": self._worker_id,
                name: which,
            },
        )
        self.publish(event)

    def worker(self, what: WorkerEventType, **data: object) -> None:
        """Publish an event about this worker."""
        self._publish(worker_event(self._worker_id, what, **data), f"worker.{what}")
