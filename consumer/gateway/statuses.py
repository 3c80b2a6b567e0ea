"""Which HTTP status an error has, and its body. Pure.

SignalWire's agents repeat every 5xx three times at once, so a 5xx says that nothing was executed; what was executed, or
may have been, is answered with 424 or 422.
"""

from typing import Final, assert_never

from schemas.base import Json, Strict
from schemas.errors import ClientError, ErrorCode, InvalidArgument, RequestTooLarge, SessionsError

RETRY_AFTER: Final = 1
"""What ``Retry-After`` says (s) where nothing was executed: a placement or a reconnection takes about as long."""

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
"""``code`` of errors that are HTTP's own and no worker's."""


class ErrorAnswer(Strict):
    """The body of every answer that is an error."""

    error: str
    """A sentence for people."""
    code: str
    """For programs: a code of the wire reference, or the name of an HTTP error."""
    retryable: bool = False
    """Whether the same request may succeed later; nothing of it was executed."""
    details: Json | None = None
    """What belongs to the error, see the wire reference."""
    warnings: list[str] | None = None
    """What was ignored in the request: fields that are unknown. Left out if nothing was."""


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


def answer_of(error: SessionsError, *, only_reads: bool = False) -> tuple[int, ErrorAnswer]:
    """Return status and body for an error of a worker or a client. ``only_reads``: the request executed nothing."""
    status = _status_of_client(error) if isinstance(error, ClientError) else status_of(ErrorCode(error.code))
    retryable = error.retryable
    if only_reads and status == 424:
        status, retryable = 503, True
    details = error.details or None
    return status, ErrorAnswer(error=error.message, code=error.code.value, retryable=retryable, details=details)


def _status_of_client(error: ClientError) -> int:
    """The status where no worker has answered: whether something was executed decides."""
    if isinstance(error, RequestTooLarge):
        return 413
    if isinstance(error, InvalidArgument):
        return 400
    return 503 if error.executed is False else 424


def http_error(status: int, sentence: str) -> ErrorAnswer:
    """The body for an error that is HTTP's own."""
    return ErrorAnswer(error=sentence, code=HTTP_CODES.get(status, "HTTP_ERROR"), retryable=status in (429, 503))
