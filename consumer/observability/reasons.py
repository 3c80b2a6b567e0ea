"""Errors of libraries in words that people can read in logs, replies and events."""

import ssl
from errno import ECONNREFUSED, ECONNRESET
from socket import EAI_AGAIN, EAI_NODATA, EAI_NONAME

_UNKNOWN_HOST = (EAI_NONAME, EAI_AGAIN, EAI_NODATA)

_AMQP_CODES = 200
"""The lowest error code of AMQP. Lower ones are the operating system's."""


def reason_of(error: BaseException | None) -> str:
    """Return the text of an error, or a sentence if it has none."""
    if error is None:
        return ""
    match error.args:
        case (int(code), str(words), *_) if words and not (isinstance(error, OSError) and code < _AMQP_CODES):
            return words  # a refusal of the broker: the words begin with the name of the code
    text = str(error).strip()
    match error:
        case OSError() if _is_refused(error, text):
            return "the connection was refused: nobody listens there"
        case OSError() if error.errno in _UNKNOWN_HOST:
            return "the host name cannot be resolved"
        case OSError() if error.errno == ECONNRESET:
            return "the connection was reset by the other side"
        case ssl.SSLError() if error.reason == "WRONG_VERSION_NUMBER":
            return "the other side does not speak TLS; is this the port for amqps?"
        case TimeoutError() if not text:
            return "no answer came in time"
        case ConnectionError() | EOFError() if not text:
            return "the connection was closed"
        case _:
            return text or f"it failed without a message ({type(error).__name__})"


def _is_refused(error: OSError, text: str) -> bool:
    """Return whether every address of the host refused the connection, for which asyncio has one text."""
    refusals = text.count(f"[Errno {ECONNREFUSED}]")
    return error.errno == ECONNREFUSED or 0 < refusals == text.count("[Errno ")
