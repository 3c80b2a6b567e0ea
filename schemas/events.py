"""The events about sessions and workers: CloudEvents 1.0 in structured JSON, on the topic exchange ``events``.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md. The routing key of a session's
event is ``session.<what>.<service_name>``, of a worker's ``worker.<what>``.
"""

import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from schemas.base import Json, Strict, Time
from schemas.ids import WorkerId

CONTENT_TYPE = "application/cloudevents+json"


class SessionEventType(StrEnum):
    """The types of session events: ``created``, then exactly one of ``closed expired died lost``.

    ``rejected`` reports a start that failed; there is no session then. ``resource_updated`` and ``list_changed`` report
    changes of the server, any number of times while the session is open.
    """

    CREATED = "created"
    CLOSED = "closed"
    EXPIRED = "expired"
    DIED = "died"
    LOST = "lost"
    REJECTED = "rejected"
    RESOURCE_UPDATED = "resource_updated"
    LIST_CHANGED = "list_changed"


TERMINAL = frozenset({SessionEventType.CLOSED, SessionEventType.EXPIRED, SessionEventType.DIED, SessionEventType.LOST})
"""The terminal events. Each created session gets exactly one of them."""


class EndReason(StrEnum):
    """Why a session ended, in ``data.reason`` of its terminal event."""

    CALL_ENDED = "call_ended"
    REQUESTED = "requested"
    REPLACED = "replaced"
    WORKER_SHUTDOWN = "worker_shutdown"
    SUPERSEDED = "superseded"
    IDLE = "idle"
    MAX_LIFETIME = "max_lifetime"
    PROCESS_EXIT = "process_exit"
    WORKER_GONE = "worker_gone"
    CRASH_LOOP = "crash_loop"

    @property
    def event_type(self) -> SessionEventType:
        """The type of the terminal event that carries this reason."""
        match self:
            case EndReason.IDLE | EndReason.MAX_LIFETIME:
                return SessionEventType.EXPIRED
            case EndReason.PROCESS_EXIT | EndReason.CRASH_LOOP:
                return SessionEventType.DIED
            case EndReason.WORKER_GONE:
                return SessionEventType.LOST
            case _:
                return SessionEventType.CLOSED


WorkerEventType = Literal["started", "draining", "stopped"]


class CloudEvent(Strict):
    """A CloudEvents 1.0 envelope; ``id`` stays the same when an event is published a second time."""

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    source: str
    type: str
    subject: str | None = None
    time: Time = Field(default_factory=lambda: datetime.now(UTC))
    datacontenttype: Literal["application/json"] = "application/json"
    data: Json

    def dump(self) -> bytes:
        """Return the event as a message body."""
        return self.model_dump_json(exclude_none=True).encode()


def source_of(worker_id: WorkerId) -> str:
    """Return the CloudEvents ``source`` of a worker's events."""
    return f"/mcp-sessions/{worker_id}"


def session_event(what: SessionEventType, info: Json, life: str, **data: object) -> CloudEvent:
    """Return the event that ``what`` happened to a session. ``info`` is its ``SessionInfo``; ``data`` adds fields.

    ``source`` is the worker of this ``life``, and the id is made from the life. If another worker reports the event
    again after that worker has died, both have the same source and id, and consumers drop the duplicate (CloudEvents
    1.0).
    """
    return CloudEvent(
        id=life if what in TERMINAL else f"{life}.{what.value}",
        source=source_of(info["worker_id"]),
        type=f"mcp.session.{what.value}",
        subject=info["session_id"],
        data={**info, **data},
    )


def worker_event(worker_id: WorkerId, what: WorkerEventType, **data: object) -> CloudEvent:
    """Return an event about a worker."""
    return CloudEvent(
        source=source_of(worker_id), type=f"mcp.worker.{what}", subject=worker_id, data={"worker_id": worker_id, **data}
    )
