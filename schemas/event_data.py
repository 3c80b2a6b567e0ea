"""The models of ``data`` for each type of event."""

from typing import Literal

from pydantic import BaseModel

from schemas.base import Json, Strict
from schemas.errors import ErrorCode
from schemas.events import EndReason
from schemas.ids import CallId, ServiceName, SessionId, WorkerId
from schemas.sessions import SessionInfo

StartKind = Literal["cold", "warm", "forked", "reserved"]
"""How a session got its process: started for it, from the warm pool, forked, or reserved while the call rang."""


class ToolsRecord(Strict):
    """The tool calls of one session: their number, durations (s) and sizes; and how its process was started."""

    calls: int
    errors: int
    p50: float | None = None
    p95: float | None = None
    longest: float | None = None
    time_in_flight: float
    bytes_in: int
    bytes_out: int
    start: StartKind | None = None
    start_duration: float | None = None


class SessionCreatedData(SessionInfo):
    """The session is open. ``restored`` is true if it replaces one that was lost or handed over."""


class SessionEndedData(SessionInfo):
    """A session info with the reason for the end and, if known, a summary of the tool calls."""

    reason: EndReason
    tools: ToolsRecord | None = None
    exit_code: int | None = None
    signal: int | None = None
    stderr: str | None = None


class SessionClosedData(SessionEndedData):
    """The session was closed. ``reason`` says why."""


class SessionExpiredData(SessionEndedData):
    """The session was idle for too long or reached its maximum lifetime."""


class SessionDiedData(SessionEndedData):
    """The session's process ended by itself, or four workers died while they had the call.

    ``exit_code`` or ``signal``, and the last lines of ``stderr``, come from the process.
    """


class SessionLostData(SessionEndedData):
    """The session's worker died. Another worker publishes the event."""


class SessionRejectedData(Strict):
    """A start failed, so there is no session. ``reason`` is the error code. It is never ``SESSION_EXISTS``."""

    session_id: SessionId
    call_id: CallId
    service_name: ServiceName
    worker_id: WorkerId
    metadata: Json
    reason: ErrorCode
    code: ErrorCode
    message: str
    details: Json


class _Changed(Strict):
    session_id: SessionId
    call_id: CallId
    service_name: ServiceName
    worker_id: WorkerId


class SessionResourceUpdatedData(_Changed):
    """A resource has changed that was subscribed to with ``resources.subscribe``."""

    uri: str


class SessionListChangedData(_Changed):
    """The session's server reports that its tools, resources or prompts have changed.

    A server of protocol version 2026-07-28 reports it only after a ``resources.subscribe`` to the session.
    """

    list: Literal["tools", "resources", "prompts"]


class WorkerStartedData(Strict):
    """The worker takes calls."""

    worker_id: WorkerId
    version: str
    host: str
    pid: int


class WorkerDrainingData(Strict):
    """The worker is leaving."""

    worker_id: WorkerId


class WorkerStoppedData(Strict):
    """The worker has stopped. This is its last message."""

    worker_id: WorkerId


EVENTS: dict[str, type[BaseModel]] = {
    "mcp.session.created": SessionCreatedData,
    "mcp.session.closed": SessionClosedData,
    "mcp.session.expired": SessionExpiredData,
    "mcp.session.died": SessionDiedData,
    "mcp.session.lost": SessionLostData,
    "mcp.session.rejected": SessionRejectedData,
    "mcp.session.resource_updated": SessionResourceUpdatedData,
    "mcp.session.list_changed": SessionListChangedData,
    "mcp.worker.started": WorkerStartedData,
    "mcp.worker.draining": WorkerDrainingData,
    "mcp.worker.stopped": WorkerStoppedData,
}
"""The model of ``data`` for each type of event."""
