"""The HTTP status and the body of each error. Pure.

SignalWire's agents repeat every 5xx three times at once. So a 5xx says that nothing was executed. If the request was or
may have been executed, the status is 424 or 422.
"""

from collections.abc import Mapping
from typing import Final, assert_never

from schemas.base import Json, Strict
from schemas.errors import ClientError, ClientErrorCode, ErrorCode, InvalidArgument, RequestTooLarge, SessionsError

RETRY_AFTER: Final = 1
"""The value of ``Retry-After`` (s) if nothing was executed. A placement or a reconnection takes about as long."""

HTTP_CODES: Final = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "BODY_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    421: "MISDIRECTED_REQUEST",
    429: "RATE_LIMITED",
    431: "HEADERS_TOO_LARGE",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
"""The ``code`` of errors that come from HTTP and not from a worker."""


class ErrorAnswer(Strict):
    """The body of every error."""

    error: str
    """A sentence for people."""
    code: str
    """For programs: a code of the wire reference, or the name of an HTTP error."""
    retryable: bool = False
    """Whether the same request may succeed later; nothing of it was executed."""
    details: Json | None = None
    """More about the error; see the wire reference."""
    warnings: list[str] | None = None
    """The unknown fields of the request, which were ignored. Left out if there were none."""


def status_of(code: ErrorCode) -> int:
    """Return the HTTP status of a worker's error."""
    match code:
        case ErrorCode.INVALID_MESSAGE | ErrorCode.UNKNOWN_TYPE | ErrorCode.SESSION_EXISTS:
            return 400
        case (
            ErrorCode.SESSION_NOT_FOUND
            | ErrorCode.SERVICE_NOT_FOUND
            | ErrorCode.SERVICE_DISABLED
            | ErrorCode.TOOL_NOT_FOUND
        ):
            return 404
        case ErrorCode.MCP_ERROR:
            return 422
        case (
            ErrorCode.TOOL_TIMEOUT
            | ErrorCode.TOOL_CANCELLED
            | ErrorCode.OUTCOME_UNKNOWN
            | ErrorCode.SESSION_DIED
            | ErrorCode.START_FAILED
            | ErrorCode.DEADLINE_EXCEEDED
            | ErrorCode.INTERNAL
        ):
            return 424
        case (
            ErrorCode.SESSION_LIMIT
            | ErrorCode.SERVICE_SESSION_LIMIT
            | ErrorCode.CAPACITY
            | ErrorCode.START_TIMEOUT
            | ErrorCode.SHUTTING_DOWN
        ):
            return 503
        case _:
            assert_never(code)


WITHOUT_OUTPUT: Final[Mapping[ErrorCode | ClientErrorCode, str]] = {
    ErrorCode.START_FAILED: "the server of this service did not start; the worker's log says why",
    ErrorCode.START_TIMEOUT: "the server of this service did not start in time; the worker's log says more",
    ErrorCode.SESSION_DIED: "the session's server has ended; the worker's log says why",
}
"""The messages of errors that quote the server's last line or name its program."""


def without_output(error: SessionsError) -> tuple[str, Json]:
    """Return an error's message and details without the server's stderr, and without paths of its host."""
    if "stderr" not in error.details:
        return error.message, error.details
    details = {name: value for name, value in error.details.items() if name != "stderr"}
    return WITHOUT_OUTPUT.get(error.code, error.message), details


def answer_of(error: SessionsError, *, only_reads: bool = False, operator: bool = False) -> tuple[int, ErrorAnswer]:
    """Return status and body for an error.

    ``only_reads`` says that the request executes nothing, ``operator`` that its sender may see the server's stderr.
    """
    status = _status_of_client(error) if isinstance(error, ClientError) else status_of(ErrorCode(error.code))
    retryable = error.retryable
    if only_reads and status == 424:
        status, retryable = 503, True
    message, details = (error.message, error.details) if operator else without_output(error)
    return status, ErrorAnswer(error=message, code=error.code.value, retryable=retryable, details=details or None)


def _status_of_client(error: ClientError) -> int:
    """Return the status if no worker has answered. It depends on whether something was executed."""
    if isinstance(error, RequestTooLarge):
        return 413
    if isinstance(error, InvalidArgument):
        return 400
    return 503 if error.executed is False else 424


def http_error(status: int, sentence: str) -> ErrorAnswer:
    """Return the body for an error of HTTP itself."""
    return ErrorAnswer(error=sentence, code=HTTP_CODES.get(status, "HTTP_ERROR"), retryable=status in (429, 503))
