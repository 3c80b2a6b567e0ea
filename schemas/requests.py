"""The requests: one strict model for each message type. The AMQP ``type`` selects the model.

Requests that are addressed to a call carry a ``session_id`` and travel under the routing key of its call. Requests
that are addressed to the cluster go to the ``queries`` queue and are answered by any worker.
"""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field, ValidationError, model_validator

from schemas.base import Json, Seconds, Strict
from schemas.calls import CallEvent
from schemas.errors import InvalidMessage, UnknownType
from schemas.explaining import explain
from schemas.ids import (
    CallId,
    CallIdField,
    Readable,
    ServiceName,
    ServiceNameField,
    SessionIdField,
    WorkerId,
    call_id_of,
)
from schemas.text import REPLACED, did_you_mean, repaired

GZIP = b"\x1f\x8b"
"""The first bytes of a body that is compressed with gzip (RFC 1952, 2.3.1)."""

MAX_PAGE = 10_000
"""The most sessions on one page of a list."""


class CallRequest(Strict):
    """A request that is addressed to a call."""

    type: ClassVar[str]
    session_id: SessionIdField

    @property
    def call_id(self) -> CallId:
        """The call of the addressed session."""
        return call_id_of(self.session_id)


class SessionCreate(CallRequest):
    """Open a session; ``timeout`` is its idle timeout (s). Result: session info.

    ``if_exists`` says what happens to an open session with that id: ``replace``, ``keep`` if it is on the same service,
    or ``reject``.

    The event ``mcp.session.rejected`` says that the start of its server failed, or that no worker had room. If the
    request names no reply address, it also says that the service is not found or disabled, the deadline has passed, or
    the metadata is too large or has the key ``call``; unless the session is open. A request that cannot be read becomes
    a dead letter only.
    """

    type: ClassVar[str] = "session.create"
    service_name: ServiceNameField
    timeout: Seconds | None = None
    metadata: Json | None = None
    if_exists: Literal["replace", "keep", "reject"] = "replace"


class SessionGet(CallRequest):
    """Get a session's state. This counts as a use of the session. Result: session info."""

    type: ClassVar[str] = "session.get"


class SessionTouch(CallRequest):
    """Restart the session's idle timeout. Result: session info."""

    type: ClassVar[str] = "session.touch"


class SessionClose(CallRequest):
    """Close a session. A call's id closes all sessions of the call. Result: ``closed``, ``sessions``."""

    type: ClassVar[str] = "session.close"


class MayOpen(CallRequest):
    """A use of a session that opens the session if necessary, depending on ``service_name`` and ``open``.

    With a ``service_name``, the call's id, ``<call_id>#<service_name>`` and the id of an open session on another
    service all mean the call's session on that service. Any other id of no open session is ``SESSION_NOT_FOUND``.
    ``open`` is ``beside`` (beside the call's other sessions), ``alone`` (only if no session has that id) or ``never``.
    ``session_timeout`` (idle timeout, s) and ``session_metadata`` apply to a session that is opened. ``timeout`` (s)
    is how long the caller waits.
    """

    service_name: ServiceNameField | None = None
    open: Literal["beside", "alone", "never"] = "never"
    session_timeout: Seconds | None = None
    session_metadata: Json | None = None
    timeout: Seconds | None = None

    @property
    def opens(self) -> ServiceName | None:
        """The service on which a session is opened for this request, if there is none."""
        return self.service_name if self.open != "never" else None


class ToolsList(CallRequest):
    """List the tools of a session's server, all pages. Result: ``tools``."""

    type: ClassVar[str] = "tools.list"
    service_name: ServiceNameField | None = None


class SessionDescribe(CallRequest):
    """Describe the MCP server of a session. Result: its era, version, capabilities, instructions."""

    type: ClassVar[str] = "session.describe"
    service_name: ServiceNameField | None = None


State = Annotated[str, Field(max_length=65_536)]
"""Opaque state of a server or a worker. It comes back with the answers to the questions."""


Key = Annotated[str, Field(min_length=1, max_length=255), Readable]
"""An idempotency key."""


class ToolsCall(MayOpen):
    """Call a tool, at most once for each ``idempotency_key`` (default: the message id) while the call has one owner.

    Another owner, after a take-over or a hand-over, does not know the key, and executes a repeated call again. A key is
    good for one session, tool and arguments, with their ``input_responses``; the other fields may differ.

    With a ``service_name``, the call's id and ``<call_id>#<service_name>`` both mean the call's session on that
    service, whatever its own id is; so does the id of an open session on another service. The result's ``session_id``
    says which session it was. If there is none, and the call has not ended, it is opened. ``open`` says how: ``beside``
    the call's other sessions, ``alone`` only if no session has that id, or ``never``. Any other id of no open session
    is ``SESSION_NOT_FOUND``, as is any id after the end of the call, until a ``session.create`` opens it again.
    ``session_timeout`` (idle timeout, s) and ``session_metadata`` apply to a session that is opened.

    ``timeout`` (s) counts from when a worker takes the request. Set the AMQP property ``expiration`` (ms) as well.
    Without it, a call that waits for a worker is executed even if its caller has stopped waiting.

    These fields ask for messages before the reply, at the same reply address: ``progress`` for ``tools.progress``,
    ``pending_after`` (s) for one ``tools.pending`` if the call takes longer, ``logs`` for ``tools.log``, ``changes``
    for ``tools.changed``, and ``questions`` for ``input.required``, which the requester then has to answer.
    ``client_capabilities`` (MCP ``ClientCapabilities``; default: elicitation) says which questions the server may ask.

    With ``questions`` = ``"return"``, a question of the server is returned as the result, MCP ``InputRequiredResult``.
    To continue, send the same request under another ``idempotency_key``, with ``input_responses`` and with the
    result's ``requestState`` as ``request_state``.

    Result: MCP ``CallToolResult`` with ``session_id`` and a plain ``text``.
    """

    type: ClassVar[str] = "tools.call"
    open: Literal["beside", "alone", "never"] = "beside"
    name: str = Field(min_length=1)
    arguments: Json = Field(default_factory=dict)
    meta: Json | None = None
    idempotency_key: Key | None = None
    progress: bool = False
    pending_after: Seconds | None = None
    logs: bool = False
    changes: bool = False
    questions: bool | Literal["return"] = False
    input_responses: Json | None = None
    request_state: State | None = None
    client_capabilities: Json | None = None


class ToolsCancel(CallRequest):
    """Cancel the tool call that runs under an idempotency key. Its requester gets ``TOOL_CANCELLED``.

    With ``leaves``, a requester says that it no longer waits. The call is then cancelled only if no other requester
    waits for it under the same key. The MCP server is told to cancel in the way of its protocol version. Result:
    ``cancelled``, which is false if no such call runs or if it goes on.
    """

    type: ClassVar[str] = "tools.cancel"
    idempotency_key: Key
    leaves: bool = False


class InputAnswer(CallRequest):
    """Answer an ``input.required``; the first answer counts. Result: ``accepted``.

    Answer an elicitation with ``action`` and ``content``. Answer any other question with the MCP ``result`` of its
    method. ``action`` = ``decline`` declines every kind of question.
    """

    type: ClassVar[str] = "input.answer"
    input_id: str = Field(min_length=1, max_length=255)
    action: Literal["accept", "decline", "cancel"] | None = None
    content: Json | None = None
    result: Json | None = None

    @model_validator(mode="after")
    def _one_answer(self) -> "InputAnswer":
        if (self.action is None) == (self.result is None):
            raise ValueError("give either action or result")
        return self


class _McpParams(MayOpen):
    pass


class _Interactive(_McpParams):
    questions: Literal["return"] | None = None
    input_responses: Json | None = None
    request_state: State | None = None
    client_capabilities: Json | None = None


class ResourcesList(_McpParams):
    """MCP ``resources/list``, or ``resources/templates/list`` with ``templates``: one page."""

    type: ClassVar[str] = "resources.list"
    cursor: str | None = None
    templates: bool = False


class ResourcesRead(_Interactive):
    """MCP ``resources/read``; questions as with ``tools.call``."""

    type: ClassVar[str] = "resources.read"
    uri: str = Field(min_length=1)


class PromptsList(_McpParams):
    """MCP ``prompts/list``: one page."""

    type: ClassVar[str] = "prompts.list"
    cursor: str | None = None


class PromptsGet(_Interactive):
    """MCP ``prompts/get``; questions as with ``tools.call``."""

    type: ClassVar[str] = "prompts.get"
    name: str = Field(min_length=1)
    arguments: dict[str, str] = Field(default_factory=dict)


class ResourcesSubscribe(_McpParams):
    """Subscribe to changes of a resource: events ``mcp.session.resource_updated``, while the session lives.

    Without a ``uri`` it subscribes only to changes of lists (``mcp.session.list_changed``). Servers from protocol
    version 2026-07-28 on report these only after a subscription. Result: empty.
    """

    type: ClassVar[str] = "resources.subscribe"
    uri: str | None = Field(default=None, min_length=1, max_length=8_192)


class ResourcesUnsubscribe(_McpParams):
    """Unsubscribe from changes of a resource, for all clients of the session. Result: empty."""

    type: ClassVar[str] = "resources.unsubscribe"
    uri: str = Field(min_length=1, max_length=8_192)


class CompletionComplete(_McpParams):
    """MCP ``completion/complete``: values for an argument of a prompt or of a resource template."""

    type: ClassVar[str] = "completion.complete"
    ref: Json
    argument: Json
    context: Json | None = None


class LoggingLevel(_McpParams):
    """Set the lowest level of the server's log messages that the session's requesters with ``logs`` get.

    Up to protocol version 2025-11-25 this is MCP ``logging/setLevel``. From 2026-07-28 on the worker sends the level
    with each request to the server. Result: empty.
    """

    type: ClassVar[str] = "logging.level"
    level: Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]


class SessionsList(Strict):
    """List the sessions of all present workers, ordered by id. ``cursor`` continues a limited list."""

    type: ClassVar[str] = "sessions.list"
    service_name: ServiceNameField | None = None
    call_id: CallIdField | None = None
    worker_id: WorkerId | None = None
    limit: int | None = Field(default=None, ge=1, le=MAX_PAGE)
    cursor: str | None = None


class ServicesList(Strict):
    """List the configured services."""

    type: ClassVar[str] = "services.list"


class ServicesTools(Strict):
    """List the tools of a service without opening a session."""

    type: ClassVar[str] = "services.tools"
    service_name: ServiceNameField


class ServicesDescribe(Strict):
    """Describe the MCP server of a service without opening a session."""

    type: ClassVar[str] = "services.describe"
    service_name: ServiceNameField


class WorkersList(Strict):
    """List the workers that are present. With ``known``, tell at once what one worker knows, and ask no others."""

    type: ClassVar[str] = "workers.list"
    known: bool = False


class WorkersFigures(Strict):
    """Get what the workers did in the last minute: starts, ends, tool calls and their durations."""

    type: ClassVar[str] = "workers.figures"


class CallStarted(CallEvent):
    """``call.started``: a call has begun. It opens the sessions of the call's route."""

    type: ClassVar[str] = "call.started"
    model_config = ConfigDict(title="call.started")


class CallProgress(CallEvent):
    """``call.progress``: a call is active. It counts as the start if there was none, else as a use."""

    type: ClassVar[str] = "call.progress"
    model_config = ConfigDict(title="call.progress")


class CallEnded(CallEvent):
    """``call.ended``: a call has ended. It closes all sessions of the call. Result: ``closed``."""

    type: ClassVar[str] = "call.ended"
    model_config = ConfigDict(title="call.ended")


MADE_OF_EVENTS: frozenset[str] = frozenset({CallStarted.type, CallProgress.type, CallEnded.type})
"""The messages that workers make from call events. Only workers may send them; publishers send the event itself."""

Lifecycle = SessionCreate | SessionClose | CallStarted | CallProgress | CallEnded
"""The requests that open, change or end a call. They go to the sessions exchange."""

Use = (
    SessionGet
    | SessionTouch
    | SessionDescribe
    | ToolsList
    | ToolsCall
    | ToolsCancel
    | InputAnswer
    | ResourcesList
    | ResourcesRead
    | PromptsList
    | PromptsGet
    | ResourcesSubscribe
    | ResourcesUnsubscribe
    | CompletionComplete
    | LoggingLevel
)
"""The requests that use a session. They go to the requests exchange."""

ClusterRequest = SessionsList | ServicesList | ServicesTools | ServicesDescribe | WorkersList | WorkersFigures
"""The requests that any worker answers."""

DURABLE = frozenset(model.type for model in get_args(Lifecycle))
"""The message types of the sessions exchange."""

CallAddressed = Lifecycle | Use
Request = CallAddressed | ClusterRequest

REQUESTS: dict[str, type[Request]] = {
    model.type: model
    for model in (
        SessionCreate,
        SessionGet,
        SessionTouch,
        SessionClose,
        SessionDescribe,
        ToolsList,
        ToolsCall,
        ToolsCancel,
        InputAnswer,
        ResourcesList,
        ResourcesRead,
        PromptsList,
        PromptsGet,
        ResourcesSubscribe,
        ResourcesUnsubscribe,
        CompletionComplete,
        LoggingLevel,
        SessionsList,
        ServicesList,
        ServicesTools,
        ServicesDescribe,
        WorkersList,
        WorkersFigures,
        CallStarted,
        CallProgress,
        CallEnded,
    )
}
"""Every request by its message type."""


def parse_request(message_type: str | None, body: bytes) -> Request:
    """Read a request. Invalid characters are replaced, except in ids, where they are refused.

    Raises:
        UnknownType: the AMQP ``type`` property is missing or names no request.
        InvalidMessage: the body is not JSON or does not fit; the message names every field at fault.
    """
    model = REQUESTS.get(message_type or "")
    if model is None:
        offered = sorted(REQUESTS.keys() - MADE_OF_EVENTS)
        told = f"unknown type {message_type!r}" if message_type else "the AMQP property 'type' is missing"
        meant = did_you_mean(message_type or "", offered)
        raise UnknownType(f"{told}; {meant}it must be one of: {', '.join(offered)}", type=message_type)
    try:
        request = _read(model, body)
    except ValidationError as error:
        if body.startswith(GZIP):
            raise InvalidMessage(
                f"{message_type}: body: is compressed with gzip; send JSON without a content_encoding",
                type=message_type,
                faults=[{"field": "body", "problem": "is compressed with gzip"}],
            ) from error
        sentence, faults = explain(error, model)
        raise InvalidMessage(f"{message_type}: {sentence}", type=message_type, faults=faults) from error
    if isinstance(request, CallEvent) and request.message_type != message_type:
        raise InvalidMessage(
            f"{message_type}: kind: must be {message_type.partition('.')[2]!r} in a message of this type"
            if message_type
            else "kind does not fit the type",
            type=message_type,
            faults=[{"field": "kind", "problem": "does not fit the message type"}],
        )
    return request


def _read(model: type[Request], body: bytes) -> Request:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        readable = repaired(body) if error.errors(include_input=False)[0]["type"] == "json_invalid" else None
        if readable is None:
            raise
    return model.model_validate_json(readable, context={REPLACED: True})
