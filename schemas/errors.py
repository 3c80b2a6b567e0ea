"""One tree for everything that can go wrong, and the code that each error has on the wire.

::

    SessionsError
    ├── InvalidMessage          INVALID_MESSAGE          what was sent cannot be read; names the field
    ├── UnknownType             UNKNOWN_TYPE             no message type of ours
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
    ├── OutcomeUnknown          OUTCOME_UNKNOWN          sent, and nobody can say whether it was executed
    ├── ShuttingDown            SHUTTING_DOWN
    ├── Internal                INTERNAL
    └── ClientError             raised by the client itself: no worker has answered
        ├── CannotConnect       BROKER_UNREACHABLE       no first connection; also a certificate that is not trusted
        │   └── AccessRefused   BROKER_REFUSED           no such user, password or vhost
        ├── InvalidUrl          INVALID_URL              no connection can be made of it; also a ValueError
        ├── Disconnected        BROKER_UNAVAILABLE       the connection is lost or being restored
        ├── Forbidden           ACCESS_REFUSED           the broker's user may not do this
        ├── NotRouted           NOT_ROUTED               no queue takes it: no worker has ever run here
        ├── NotConfirmed        NOT_CONFIRMED            the broker may have it or not
        ├── RequestTooLarge     REQUEST_TOO_LARGE        more than a broker takes in one message
        ├── NoReply             NO_REPLY                 nobody answered within ``reply_timeout``
        └── InvalidReply        INVALID_REPLY            what came back cannot be read

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
    """The codes of what a client raises without an answer of a worker; none of them is on the wire."""

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


class ErrorBody(Strict):
    """The ``error`` of a reply that is not ``ok``; ``retryable`` says whether the same request may succeed later."""

    code: Annotated[ErrorCode, Field(strict=False)]  # also read from JSON that was parsed before, where it is a text
    message: str
    retryable: bool = False
    details: Json = Field(default_factory=dict)


class SessionsError(Exception):
    """An error with a wire code.

    ``message`` is a sentence for people, ``details`` become ``error.details`` of the reply.
    ``executed`` is False when the request has certainly not been executed, and None when that is not certain.
    """

    code: ClassVar[ErrorCode | ClientErrorCode] = ErrorCode.INTERNAL
    retryable: ClassVar[bool] = False
    executed: bool | None = None

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Json = details

    def body(self) -> ErrorBody:
        """This error as it stands in a reply."""
        return ErrorBody(
            code=ErrorCode(self.code), message=self.message, retryable=self.retryable, details=self.details
        )


class InvalidMessage(SessionsError):
    """What was sent cannot be read; the message names the field."""

    code = ErrorCode.INVALID_MESSAGE
    executed = False


class UnknownType(SessionsError):
    """The AMQP ``type`` property names no message type of ours."""

    code = ErrorCode.UNKNOWN_TYPE


class SessionNotFound(SessionsError):
    """There is no such session: never opened, closed, expired or died."""

    code = ErrorCode.SESSION_NOT_FOUND
    executed = False


class SessionExists(SessionsError):
    """A session of that id is open and the request said ``if_exists: reject``."""

    code = ErrorCode.SESSION_EXISTS


class ServiceNotFound(SessionsError, ValueError):
    """No service of that name is configured."""

    code = ErrorCode.SERVICE_NOT_FOUND


class ServiceDisabled(SessionsError, ValueError):
    """The service is configured with ``enabled = false``."""

    code = ErrorCode.SERVICE_DISABLED


class LimitReached(SessionsError, RuntimeError):
    """A limit on the number of sessions is reached."""

    retryable = True


class SessionLimit(LimitReached):
    """The worker has ``max_total_sessions`` sessions."""

    code = ErrorCode.SESSION_LIMIT


class ServiceSessionLimit(LimitReached):
    """The service has ``max_sessions_per_service`` sessions."""

    code = ErrorCode.SERVICE_SESSION_LIMIT


class Capacity(LimitReached):
    """No worker had room within ``admission_wait``."""

    code = ErrorCode.CAPACITY
    executed = False


class StartFailed(SessionsError):
    """The MCP server ended or misbehaved while it was starting; details: ``exit_code``, ``signal``, ``stderr``.

    A server at a URL that refused has its HTTP status in ``status``.
    """

    code = ErrorCode.START_FAILED


class StartTimeout(SessionsError):
    """The MCP server did not finish its handshake within ``start_timeout``; details: ``stderr``."""

    code = ErrorCode.START_TIMEOUT
    retryable = True


class ToolNotFound(SessionsError):
    """The session's server lists no tool of that name."""

    code = ErrorCode.TOOL_NOT_FOUND
    executed = False


class ToolTimeout(SessionsError):
    """The call ran past its deadline and was cancelled at the server."""

    code = ErrorCode.TOOL_TIMEOUT


class ToolCancelled(SessionsError):
    """The call was cancelled with ``tools.cancel`` while it ran; nobody knows how far it came."""

    code = ErrorCode.TOOL_CANCELLED


class McpError(SessionsError):
    """The MCP server answered with a JSON-RPC error, or with what is no answer; details: ``code``, ``data``.

    The message is in the server's own words. The HTTP status of a refusal that is no JSON-RPC is in ``data.status``.
    """

    code = ErrorCode.MCP_ERROR


class SessionDied(SessionsError):
    """The session's process has ended; details: ``exit_code``, ``signal``, ``stderr``."""

    code = ErrorCode.SESSION_DIED
    executed = False


class DeadlineExceeded(SessionsError):
    """The request waited longer than its caller's timeout and was not executed."""

    code = ErrorCode.DEADLINE_EXCEEDED
    executed = False


class OutcomeUnknown(SessionsError):
    """The call was sent to the server, and nobody can say whether it was executed."""

    code = ErrorCode.OUTCOME_UNKNOWN


class ShuttingDown(SessionsError):
    """The worker is leaving; ask again, another one will answer."""

    code = ErrorCode.SHUTTING_DOWN
    retryable = True


class Internal(SessionsError):
    """A defect of ours; the log has the traceback."""

    code = ErrorCode.INTERNAL


class ClientError(SessionsError):
    """The client has no answer of a worker."""


class CannotConnect(ClientError):
    """The client could not connect to the broker: nobody is there within ``connect_timeout``, or it is not trusted."""

    code = ClientErrorCode.BROKER_UNREACHABLE
    executed = False


class AccessRefused(CannotConnect):
    """The broker knows no such user, password or vhost, and will not know it in a minute."""

    code = ClientErrorCode.BROKER_REFUSED


class InvalidUrl(ClientError, ValueError):
    """No connection can be made of the broker's URL; the message says what to write and repeats nothing of it."""

    code = ClientErrorCode.INVALID_URL
    executed = False


class Disconnected(ClientError):
    """The client has no connection at the moment, or lost it before the reply came; it connects again by itself."""

    code = ClientErrorCode.BROKER_UNAVAILABLE
    retryable = True

    def __init__(self, message: str, *, executed: bool | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.executed = executed


class Forbidden(ClientError):
    """The broker's user may not do this; nothing was done."""

    code = ClientErrorCode.ACCESS_REFUSED
    executed = False


class NotRouted(ClientError):
    """The broker has no exchange or no queue for the message: no worker has ever run under this prefix."""

    code = ClientErrorCode.NOT_ROUTED
    executed = False


class NotConfirmed(ClientError):
    """The broker did not confirm the message: it may be in a queue or not, and is delivered if it is."""

    code = ClientErrorCode.NOT_CONFIRMED


class RequestTooLarge(ClientError):
    """The message is larger than a broker takes; nothing was sent, and trying again is no use."""

    code = ClientErrorCode.REQUEST_TOO_LARGE
    executed = False


class NoReply(ClientError):
    """Nobody answered within ``reply_timeout``, or no worker is there; whether the request was executed is unknown."""

    code = ClientErrorCode.NO_REPLY


class InvalidReply(ClientError):
    """The reply cannot be read, or its result is not what the request gives; the request was handled."""

    code = ClientErrorCode.INVALID_REPLY


class InvalidKey(ClientError, ValueError):
    """No token can be minted: the client has no key, or none that signs, or one that cannot be read."""

    code = ClientErrorCode.INVALID_KEY
    executed = False


def by_code(root: type[SessionsError] = SessionsError) -> dict[ErrorCode, type[SessionsError]]:
    """The class of each code on the wire, below ``root``; its docstring says what the code means."""
    found: dict[ErrorCode, type[SessionsError]] = {}
    for child in root.__subclasses__():
        if "code" in vars(child) and isinstance(child.code, ErrorCode):
            found[child.code] = child
        found.update(by_code(child))
    return found


def from_body(body: ErrorBody) -> SessionsError:
    """The exception for an error that came in a reply: what a client raises."""
    return by_code().get(body.code, Internal)(body.message, **body.details)
