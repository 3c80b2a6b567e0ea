"""Errors of libraries, in words: for logs, replies and events, which people read."""

_AMQP_CODES = 200
"""The lowest code of AMQP; those of the operating system are below."""


def reason_of(error: BaseException | None) -> str:
    """What an error says of itself, or a sentence where it says nothing."""
    if error is None:
        return ""
    match error.args:
        case (int(code), str(words), *_) if words and not (isinstance(error, OSError) and code < _AMQP_CODES):
            return words  # a refusal of the broker: the words begin with the name of the code
    text = str(error).strip()
    match error:
        case TimeoutError() if not text:
            return "no answer came in time"
        case ConnectionError() | EOFError() if not text:
            return "the connection was closed"
        case _:
            return text or f"it failed without a word ({type(error).__name__})"
