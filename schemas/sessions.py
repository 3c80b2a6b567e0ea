"""The models that describe a session, a service and a worker."""

from typing import Literal

from pydantic import Field

from schemas.base import Json, Strict, Time
from schemas.ids import CallId, ServiceName, SessionId, WorkerId


class SessionInfo(Strict):
    """A session as replies and events show it. Times are ISO 8601 in UTC, durations are seconds."""

    session_id: SessionId
    call_id: CallId
    service_name: ServiceName
    worker_id: WorkerId
    created_at: Time
    last_accessed: Time
    timeout: float
    time_remaining: float
    metadata: Json
    is_alive: bool
    is_expired: bool
    restored: bool = False


class ServiceInfo(Strict):
    """A configured service as ``services.list`` shows it. ``sessions`` counts its sessions on all present workers.

    ``command`` is the server's command, without secrets, from the configuration of the worker that answers.
    """

    description: str = ""
    enabled: bool = True
    transport: Literal["stdio", "http"] = "stdio"
    sessions: int = 0
    max_sessions: int = 0
    command: list[str] = Field(default_factory=list)


WorkerState = Literal["starting", "ready", "draining", "stopped"]


class ServiceLoad(Strict):
    """One service on one worker: its open and opening sessions, its limit, and its warm processes."""

    sessions: int = 0
    max_sessions: int = 0
    warm: int = 0
    enabled: bool = True
    description: str = ""
    transport: Literal["stdio", "http"] = "stdio"


class WorkerInfo(Strict):
    """A worker as ``workers.list`` shows it. ``sessions`` counts open and opening ones; ``capacity`` is their limit."""

    worker_id: WorkerId
    host: str
    pid: int
    version: str
    state: WorkerState
    started_at: Time
    sessions: int
    capacity: int
    services: dict[str, ServiceLoad]


class ToolFigures(Strict):
    """The tool calls of one service. ``durations`` are pairs of a duration (s, within 2 %) and a number of calls."""

    calls: int
    errors: int
    durations: list[tuple[float, int]]


class FailedStart(Strict):
    """A start of a service's server that failed: the error code, and when."""

    code: str
    at: Time


class WorkerFigures(Strict):
    """What one worker did in the last ``seconds``: a minute, or less if it has just started.

    ``starts`` and ``ends`` count sessions. ``parked`` counts the messages that it dead-lettered, by reason. ``placer``
    is true for the worker that places calls now. ``failing`` has each service whose latest start for a session failed
    with its present configuration, however long ago.
    """

    worker_id: WorkerId
    placer: bool
    seconds: float
    starts: int
    ends: int
    tools: dict[str, ToolFigures]
    parked: dict[str, int]
    failing: dict[str, FailedStart] = Field(default_factory=dict)
