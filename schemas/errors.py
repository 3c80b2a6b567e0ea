"""One tree for everything that can go wrong, and the code that each error has on the wire.

::

    SessionsError
    ├── InvalidMessage          INVALID_MESSAGE          the request cannot be read; names the field
    ├── UnknownType             UNKNOWN_TYPE             an unknown message type
    ├── SessionNotFound         SESSION_NOT_FOUND
    ├── SessionExists           SESSION_EXISTS           if_exists = "reject"
    ├── ServiceNotFound         SERVICE_NOT_FOUND        also a ValueError
    ├── ServiceDisabled         SERVICE_DISABLED         also a ValueError
    ├── LimitReached                                     also a RuntimeError
    │   ├── SessionLimit        SESSION_LIMIT            the worker's max_total_sessions
    │   ├── ServiceSessionLimit SERVICE_SESSION_LIMIT    the service's max_sessions_per_service
    │   └── Capacity            CAPACITY                 every worker is full
    ├── StartFailed             START_FAILED             exit code and last lines of stderr in details
    ├── StartTimeout            START_TIMEOUT
    ├── ToolNotFound            TOOL_NOT_FOUND
    ├── ToolTimeout             TOOL_TIMEOUT
    ├── ToolCancelled           TOOL_CANCELLED           somebody cancelled the call while it ran
    ├── McpError                MCP_ERROR                the server's own JSON-RPC error in details
    ├── SessionDied             SESSION_DIED
    ├── DeadlineExceeded        DEADLINE_EXCEEDED        waited past the caller's timeout, not executed
    ├── OutcomeUnknown          OUTCOME_UNKNOWN          sent, but it is unknown whether it was executed
    ├── ShuttingDown            SHUTTING_DOWN
    ├── Internal                INTERNAL
    └── ClientError             raised by the client itself: no worker has answered
        ├── CannotConnect       BROKER_UNREACHABLE       no first connection; also an untrusted certificate
        │   └── AccessRefused   BROKER_REFUSED           no such user, password or vhost
        ├── InvalidUrl          INVALID_URL              the broker's URL is invalid; also a ValueError
        ├── Disconnected        BROKER_UNAVAILABLE       not connected, or the connection was lost
        ├── NotConnectedHere    NOT_CONNECTED_HERE       connected before a fork, or in another event loop
        ├── Forbidden           ACCESS_REFUSED           the broker's user may not do this
        ├── NotRouted           NOT_ROUTED               nothing takes it: no worker, queue or exchange
        ├── NotConfirmed        NOT_CONFIRMED            the broker may or may not have it
        ├── RequestTooLarge     REQUEST_TOO_LARGE        larger than the broker's limit for a message
        ├── NoReply             NO_REPLY                 no reply within ``reply_timeout``
        ├── InvalidReply        INVALID_REPLY            the reply cannot be read
        └── InvalidArgument     INVALID_ARGUMENT         a wrong argument; also a TypeError and a ValueError

The message of an error is written for the person who reads it in a reply or a log; ``details`` is for programs.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from schemas.base import Json, Strict


class ErrorCode(StrEnum):
    """Every code that a reply's ``error.code`` can have."""

    INVALID_MESSAGE = "INVALID_MESSAGE"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    SESSION_EXISTS = "SESSION_EXISTS"
    SERVICE_NOT_FOUND = "SERVICE_NOT_FOUND"
    SERVICE_DISABLED = "SERVICE_DISABLED"
    SESSION_LIMIT = "SESSION_LIMIT"
    SERVICE_SESSION_LIMIT = "SERVICE_SESSION_LIMIT"
    CAPACITY = "CAPACITY"
    START_FAILED = "START_FAILED"
    START_TIMEOUT = "START_TIMEOUT"
    TOOL_NOT_FOUND = "TOOL_NOT_FOUND"
    TOOL_TIMEOUT = "TOOL_TIMEOUT"
    TOOL_CANCELLED = "TOOL_CANCELLED"
    MCP_ERROR = "MCP_ERROR"
    SESSION_DIED = "SESSION_DIED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    INTERNAL = "INTERNAL"


class ClientErrorCode(StrEnum):
    """The codes of errors that a client raises without a worker's reply. None of them is on the wire."""

    BROKER_UNREACHABLE = "BROKER_UNREACHABLE"
    BROKER_REFUSED = "BROKER_REFUSED"
    INVALID_URL = "INVALID_URL"
    BROKER_UNAVAILABLE = "BROKER_UNAVAILABLE"
    NOT_ROUTED = "NOT_ROUTED"
    NOT_CONFIRMED = "NOT_CONFIRMED"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    NO_REPLY = "NO_REPLY"
    ACCESS_REFUSED = "ACCESS_REFUSED"
    INVALID_REPLY = "INVALID_REPLY"
    INVALID_KEY = "INVALID_KEY"
    NOT_CONNECTED_HERE = "NOT_CONNECTED_HERE"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"


class ErrorBody(Strict):
    """The ``error`` of a reply that is not ``ok``.

    ``retryable`` says that nothing was executed, and that the same request may succeed later.

    ``details`` of ``INVALID_MESSAGE`` are one of: ``faults``, a list of ``field`` and, mostly, ``problem``, with the
    ``type`` of the message or alone; ``type``, if that was sent to the wrong place; ``header``; ``reply_to``;
    ``call_id`` and ``routing_key``; ``size`` and ``limit`` (bytes); ``limit`` alone (a number of JSON values or
    subscriptions); ``idempotency_key``; ``input_id``; ``request_state``; ``argument`` and ``missing``, the metadata
    that it is bound to; or nothing.
    """

    code: Annotated[ErrorCode, Field(strict=False)]  # also read from JSON that was parsed before, where it is a text
    message: str
    retryable: bool = False
    details: Json = Field(default_factory=dict)


class SessionsError(Exception):
    """An error with a wire code.

    ``message`` is a sentence for people, ``details`` become ``error.details`` of the reply.
    ``executed`` is False when the request has certainly not been executed, and None when that is not certain.
    ``retryable`` says that the same request may succeed later; only what was certainly not executed is retryable.
    """

    code: ClassVar[ErrorCode | ClientErrorCode] = ErrorCode.INTERNAL
    retryable: bool = False
    executed: bool | None = None

    def __init__(self, message: str, /, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Json = details

    def body(self) -> ErrorBody:
        """Return this error as part of a reply."""
        return ErrorBody(
            code=ErrorCode(self.code), message=self.message, retryable=self.retryable, details=self.details
        )


class InvalidMessage(SessionsError):
    """The request cannot be read. The message names the field."""

    code = ErrorCode.INVALID_MESSAGE
    executed = False


class UnknownType(SessionsError):
    """The AMQP property ``type`` is missing or names an unknown message type."""

    code = ErrorCode.UNKNOWN_TYPE
    executed = False


class SessionNotFound(SessionsError):
    """There is no such session: it was never opened, or it was closed, has expired or has died.

    For 30 seconds (``worker.tombstone``) after a session died, the message says how, and details are ``exit_code``,
    ``signal`` and ``stderr``. Only its worker knows it.
    """

    code = ErrorCode.SESSION_NOT_FOUND
    executed = False


class SessionExists(SessionsError):
    """A session with that id is open, and the request does not accept it.

    It has ``if_exists: reject``, or the session is on another service and it has ``if_exists: keep`` or
    ``open: alone``.
    """

    code = ErrorCode.SESSION_EXISTS
    executed = False


class ServiceNotFound(SessionsError, ValueError):
    """No service of that name is configured."""

    code = ErrorCode.SERVICE_NOT_FOUND
    executed = False


class ServiceDisabled(SessionsError, ValueError):
    """The service is configured with ``enabled = false``."""

    code = ErrorCode.SERVICE_DISABLED
    executed = False


class LimitReached(SessionsError, RuntimeError):
    """A limit on the number of sessions is reached."""

    retryable = True
    executed = False


class SessionLimit(LimitReached):
    """The worker has ``max_total_sessions`` sessions."""

    code = ErrorCode.SESSION_LIMIT


class ServiceSessionLimit(LimitReached):
    """The service has ``max_sessions_per_service`` sessions."""

    code = ErrorCode.SERVICE_SESSION_LIMIT


class Capacity(LimitReached):
    """No worker had room within ``admission_wait``."""

    code = ErrorCode.CAPACITY


class StartFailed(SessionsError):
    """The MCP server exited or failed while it started; details: ``exit_code``, ``signal``, ``stderr``.

    If a server at a URL refused, its HTTP status is in ``status``.
    """

    code = ErrorCode.START_FAILED
    executed = False


class StartTimeout(SessionsError):
    """The MCP server did not finish its handshake within ``start_timeout``; details: ``stderr``."""

    code = ErrorCode.START_TIMEOUT
    retryable = True
    executed = False


class ToolNotFound(SessionsError):
    """The session's server has no tool with that name."""

    code = ErrorCode.TOOL_NOT_FOUND
    executed = False


class ToolTimeout(SessionsError):
    """The tool call ran past its deadline and was cancelled at the server."""

    code = ErrorCode.TOOL_TIMEOUT


class ToolCancelled(SessionsError):
    """The tool call was cancelled with ``tools.cancel`` while it ran. How far it came is unknown."""

    code = ErrorCode.TOOL_CANCELLED


class McpError(SessionsError):
    """The MCP server answered with a JSON-RPC error or an invalid response; details: ``code``, ``message``, ``data``.

    The sentence quotes the server's own, which is ``message``. If a server refused over HTTP without JSON-RPC, the
    status is in ``data.status``. If the result is larger than ``max_result``, or a response is too large to be parsed,
    details are ``size`` and ``limit`` (bytes), or ``limit`` alone (a number of JSON values).
    """

    code = ErrorCode.MCP_ERROR


class SessionDied(SessionsError):
    """The session's process ended just before the request; details: ``exit_code``, ``signal``, ``stderr``.

    Later requests get ``SESSION_NOT_FOUND``, unless they open a new session.
    """

    code = ErrorCode.SESSION_DIED
    executed = False


class DeadlineExceeded(SessionsError):
    """The request waited longer than its caller's timeout and was not executed."""

    code = ErrorCode.DEADLINE_EXCEEDED
    executed = False


class OutcomeUnknown(SessionsError):
    """The tool call may have reached the server, but it is unknown whether it was executed.

    RabbitMQ may deliver a tool call again after its caller's timeout, when the worker that had it is gone or has lost
    its connection; then there are no details. If the server died, details are ``exit_code``, ``signal`` and ``stderr``.
    If it was ended, because the call ended or its session was closed or replaced, ``reason`` is that of the session's
    terminal event.
    """

    code = ErrorCode.OUTCOME_UNKNOWN


class ShuttingDown(SessionsError):
    """The worker is shutting down. Send the request again, and another worker answers."""

    code = ErrorCode.SHUTTING_DOWN
    retryable = True
    executed = False


class Internal(SessionsError):
    """A bug in mcp-sessions. The worker's log has the traceback."""

    code = ErrorCode.INTERNAL


class ClientError(SessionsError):
    """The client got no reply from a worker."""


class CannotConnect(ClientError):
    """The client could not connect: no broker answered within ``connect_timeout``, or it cannot be used.

    Retrying does not help, and the error is not retryable, if the broker's certificate is not trusted, if only one side
    speaks TLS, or if the user lacks a permission.
    """

    code = ClientErrorCode.BROKER_UNREACHABLE
    retryable = True
    executed = False

    def __init__(self, message: str, /, *, retryable: bool = True, **details: Any) -> None:
        super().__init__(message, **details)
        self.retryable = retryable


class AccessRefused(CannotConnect):
    """The broker refused the user, the password or the vhost. Retrying does not help."""

    code = ClientErrorCode.BROKER_REFUSED
    retryable = False

    def __init__(self, message: str, /, **details: Any) -> None:
        super().__init__(message, retryable=False, **details)


class InvalidUrl(ClientError, ValueError):
    """The broker's URL is invalid. The message says what to write, and does not repeat the URL."""

    code = ClientErrorCode.INVALID_URL
    executed = False


class Disconnected(ClientError):
    """The client is not connected and sent nothing, or lost the connection before the reply came. It reconnects.

    Before ``connect`` and after ``disconnect`` it does not, and the error is not retryable.
    """

    code = ClientErrorCode.BROKER_UNAVAILABLE

    def __init__(
        self, message: str, /, *, executed: bool | None = None, retryable: bool = True, **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.executed = executed
        self.retryable = retryable and executed is False


class NotConnectedHere(ClientError, RuntimeError):
    """The client was connected in another process, before a fork, or in another event loop. Connect one here."""

    code = ClientErrorCode.NOT_CONNECTED_HERE
    executed = False


class Forbidden(ClientError):
    """The broker's user does not have the permission. Nothing was executed."""

    code = ClientErrorCode.ACCESS_REFUSED
    executed = False


class NotRoutedReason(StrEnum):
    """Why nothing takes a message: ``details["reason"]`` of ``NotRouted``."""

    NO_WORKER = "no_worker"
    """The queues are there, and no worker consumes from them."""
    NOT_DECLARED = "not_declared"
    """The topology of the prefix is not declared, or not all of it; ``missing`` lists what is missing."""
    NO_EXCHANGE = "no_exchange"
    """There is no exchange of the name that the caller gave."""
    NO_QUEUE = "no_queue"
    """The exchange has no queue for the message."""
    REFUSED = "refused"
    """The queue takes no more, or is not available."""


class NotRouted(ClientError):
    """Nothing takes the message, which is in no queue; details: ``reason``, and ``missing`` if it is ``not_declared``.

    ``reason`` is ``no_worker``, ``not_declared``, ``no_exchange``, ``no_queue`` or ``refused`` (``NotRoutedReason``).
    With ``no_exchange`` the name is wrong, so the error is not retryable.
    """

    code = ClientErrorCode.NOT_ROUTED
    retryable = True
    executed = False

    def __init__(self, message: str, /, *, reason: NotRoutedReason, **details: Any) -> None:
        super().__init__(message, reason=reason.value, **details)
        self.retryable = reason is not NotRoutedReason.NO_EXCHANGE


class NotConfirmed(ClientError):
    """The broker did not confirm the message. If it is in a queue, it will be delivered.

    A call event can be published again, because a repeated one changes nothing.
    """

    code = ClientErrorCode.NOT_CONFIRMED


class RequestTooLarge(ClientError):
    """The message is larger than the broker's limit. Nothing was sent, and retrying does not help."""

    code = ClientErrorCode.REQUEST_TOO_LARGE
    executed = False


class NoReply(ClientError):
    """No reply came in time. Whether the request was executed is unknown.

    A tool call that is repeated with the same ``idempotency_key`` is executed at most once as long as the call stays
    with its owner.
    """

    code = ClientErrorCode.NO_REPLY


class InvalidReply(ClientError):
    """The reply cannot be read, or its result does not fit the request. The request was handled."""

    code = ClientErrorCode.INVALID_REPLY


class InvalidArgument(ClientError, TypeError, ValueError):
    """An argument of a client's method has the wrong type or value, which the message names. Nothing was sent.

    ``executed`` is None if ``on_question`` returned a wrong answer, because the tool call had already been sent.
    """

    code = ClientErrorCode.INVALID_ARGUMENT
    executed: bool | None = False


class InvalidKey(ClientError, ValueError):
    """The client cannot mint a token: it has no key, no key that signs, or one that is too short or cannot be read."""

    code = ClientErrorCode.INVALID_KEY
    executed = False


def by_code(root: type[SessionsError] = SessionsError) -> dict[ErrorCode, type[SessionsError]]:
    """Return the class of each code on the wire, below ``root``. Its docstring says what the code means."""
    found: dict[ErrorCode, type[SessionsError]] = {}
    for child in root.__subclasses__():
        if "code" in vars(child) and isinstance(child.code, ErrorCode):
            found[child.code] = child
        found.update(by_code(child))
    return found


_CLASSES = by_code()


def from_body(body: ErrorBody) -> SessionsError:
    """Return the exception that a client raises for an error in a reply."""
    return _CLASSES.get(body.code, Internal)(body.message, **body.details)
