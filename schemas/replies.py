"""Replies: ``{"ok": true, "result": {...}}`` or ``{"ok": false, "error": {...}}``, and the shapes of the results."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import from_json

from schemas.base import Json, Strict, Tolerant
from schemas.errors import ErrorBody, Internal, SessionsError, from_body
from schemas.ids import ServiceName, SessionId, WorkerId
from schemas.sessions import ServiceInfo, SessionInfo, WorkerFigures, WorkerInfo

REPLY_SUFFIX = ".reply"
"""The suffix that makes the ``type`` of a reply from the ``type`` of its request."""


class Reply(Strict):
    """The reply to a request. Exactly one of ``result`` and ``error`` is set."""

    ok: bool
    result: Json | None = None
    error: ErrorBody | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "Reply":
        if self.ok in (self.error is not None, self.result is None):
            raise ValueError("a reply has a result when it is ok, and an error when it is not")
        return self

    def dump(self) -> bytes:
        """Return the reply as a message body."""
        return self.model_dump_json(exclude_none=True).encode()

    def unwrap(self) -> Json:
        """Return the result.

        Raises:
            SessionsError: the reply has an error; the class follows from its code.
        """
        if self.error is not None:
            raise from_body(self.error)
        return self.result or {}


def succeeded(result: Json) -> Reply:
    """Return a reply with a result."""
    return Reply(ok=True, result=result)


def failed(error: SessionsError) -> Reply:
    """Return a reply with an error."""
    return Reply(ok=False, error=error.body())


def parse_reply(body: bytes) -> Reply:
    """Read a reply.

    Raises:
        Internal: the body is not a valid reply.
    """
    try:
        # Read before it is validated: half the time of model_validate_json for what has no model, as most of it has.
        return Reply.model_validate(from_json(body))
    except ValueError as error:
        raise Internal(f"the response is not a reply: {str(error).splitlines()[0]}") from error


class CloseResult(Strict):
    """Result of ``session.close``: whether a session was closed, and the ids of those that were."""

    closed: bool
    sessions: list[SessionId]


class StartResult(Strict):
    """Result of ``call.started`` and ``call.progress``: the sessions that the call has."""

    sessions: list[SessionId]


class EndResult(Strict):
    """Result of ``call.ended``: the sessions that it closed."""

    closed: list[SessionId]


class SessionsPage(Strict):
    """Result of ``sessions.list``. ``complete`` is false if ``missing_workers`` did not answer.

    A worker that does not answer, such as one that hangs, is missing until its sessions are reported as lost.
    """

    sessions: dict[str, SessionInfo]
    complete: bool
    missing_workers: list[WorkerId]
    next_cursor: str | None = None


class ServicesResult(Strict):
    """Result of ``services.list``. ``missing_workers`` do not answer: the figures lack theirs."""

    services: dict[str, ServiceInfo]
    missing_workers: list[WorkerId] = Field(default_factory=list)


class ServiceTools(Strict):
    """Result of ``services.tools``: MCP ``Tool`` objects as the server lists them."""

    service_name: ServiceName
    tools: list[Json]


class ServerDescription(Strict):
    """An MCP server's description of itself. ``capabilities`` and ``server_info`` are MCP objects, unchanged.

    ``era`` is ``handshake`` up to protocol version 2025-11-25, and ``modern`` from 2026-07-28 on.
    """

    service_name: ServiceName
    session_id: SessionId | None = None
    era: Literal["handshake", "modern"]
    protocol_version: str
    capabilities: Json
    server_info: Json | None = None
    instructions: str | None = None


class WorkersResult(Strict):
    """Result of ``workers.list``. ``missing_workers`` do not answer, and may still have sessions."""

    workers: list[WorkerInfo]
    missing_workers: list[WorkerId] = Field(default_factory=list)


class FiguresResult(Strict):
    """Result of ``workers.figures``. ``missing_workers`` did not answer in time, or are too old to know the request."""

    workers: list[WorkerFigures]
    missing_workers: list[WorkerId]


class ToolsResult(Strict):
    """Result of ``tools.list``: MCP ``Tool`` objects as the server lists them."""

    tools: list[Json]


class AnswerResult(Strict):
    """Result of ``input.answer``."""

    accepted: bool


class CancelResult(Strict):
    """Result of ``tools.cancel``."""

    cancelled: bool


class McpResult(Tolerant):
    """The result of the MCP server, unchanged. The MCP specification describes it."""

    model_config = ConfigDict(extra="allow", frozen=True)


class ToolCallResult(Tolerant):
    """Result of ``tools.call``: MCP ``CallToolResult`` unchanged, with its session and its text.

    ``text`` is the text contents, one per line. If there are none, it is the structured content as JSON.

    ``restored`` is true in the first result of a session that replaces a lost one. The memory of that one is gone.

    With ``questions`` = ``"return"`` it may be MCP ``InputRequiredResult``. Then ``resultType`` is ``input_required``
    and ``inputRequests`` has the server's questions. Send ``requestState`` back with the answers.
    """

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    session_id: SessionId
    text: str
    content: list[Any] = Field(default_factory=list)
    structured_content: Any = Field(default=None, alias="structuredContent")
    is_error: bool = Field(default=False, alias="isError")
    restored: bool = False
    result_type: str = Field(default="complete", alias="resultType")
    input_requests: Json | None = Field(default=None, alias="inputRequests")
    request_state: str | None = Field(default=None, alias="requestState")


RESULTS: dict[str, type[BaseModel]] = {
    "session.create": SessionInfo,
    "session.get": SessionInfo,
    "session.touch": SessionInfo,
    "session.close": CloseResult,
    "session.describe": ServerDescription,
    "tools.list": ToolsResult,
    "tools.call": ToolCallResult,
    "tools.cancel": CancelResult,
    "input.answer": AnswerResult,
    "resources.list": McpResult,
    "resources.read": McpResult,
    "prompts.list": McpResult,
    "prompts.get": McpResult,
    "resources.subscribe": McpResult,
    "resources.unsubscribe": McpResult,
    "completion.complete": McpResult,
    "logging.level": McpResult,
    "sessions.list": SessionsPage,
    "services.list": ServicesResult,
    "services.tools": ServiceTools,
    "services.describe": ServerDescription,
    "workers.list": WorkersResult,
    "workers.figures": FiguresResult,
    "call.started": StartResult,
    "call.progress": StartResult,
    "call.ended": EndResult,
}
"""The model of ``result`` in a successful reply, by the type of the request."""
