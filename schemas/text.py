"""Text from other systems: replaces invalid characters, because the rest of a message is still useful.

A caller's name comes from a SIP header in whatever encoding a telephone had, and JavaScript cuts an emoji in half. A
replacement does harm only in an id, because two calls would become one. So ids with invalid characters are refused.
"""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

REPLACED: Final = "replaced"
"""The key in pydantic's validation context that says that characters of the message were replaced."""

_NO_TEXT: Final = re.compile("[\ud800-\udfff]")
_HALF_ESCAPED: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def decoded(body: bytes) -> str:
    """Decode UTF-8. Each invalid byte becomes a lone surrogate, which ``replaced`` finds later."""
    return body.decode("utf-8", "surrogateescape")


def replaced(text: str) -> str:
    """Return the text with a replacement character for each lone surrogate, so that it can be sent."""
    return text if text.isascii() else _NO_TEXT.sub(REPLACEMENT, text)


def first_odd(text: str) -> int | None:
    """Return the position of the first invalid byte, counted from 0; None if there is none."""
    found = _NO_TEXT.search(text)
    return len(text[: found.start()].encode()) if found else None


def repaired(body: bytes) -> str | None:
    """Return JSON with its invalid characters replaced; None if it has none, or is invalid for another reason."""
    if _is_utf8(body) and not _HALF_ESCAPED.search(body):
        return None
    try:
        text = json.dumps(json.loads(decoded(body)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    made = replaced(text)
    return made if made != text else None


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def unknown_field(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return the fault of a field that is not in ``known``. A common ``prefix`` does not count as similarity."""
    known = sorted(known)
    words = {one.removeprefix(prefix).lower(): one for one in known}
    near = [words[word] for word in get_close_matches(name.removeprefix(prefix).lower(), words, n=3, cutoff=0.6)]
    if near:
        return f"is unknown; did you mean {' or '.join(near)}?"
    return f"is unknown; known: {', '.join(known)}" if known else "is unknown"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: the most similar known name, and the list of known names."""
    names = list(known)
    return f"{did_you_mean(name, names)}configured: {', '.join(names) or 'none'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...?" with a trailing space if a known name is similar, otherwise an empty text."""
    near = get_close_matches(name.casefold(), list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}? " if near else ""


def in_seconds(duration: float) -> str:
    """Return a duration with its unit, to 10 ms, or to three digits if it is shorter than a second."""
    return f"{max(duration, 0.001):.3g} s" if duration < 1 else f"{round(duration, 2):g} s"


_SHOULD = re.compile(r"^(?:Input|Value|String|List|Tuple|Set|Dictionary|Bytes|Data|URL) should ")


def problem_of(message: str) -> str:
    """Return pydantic's fault in our own words: what a field must be or have."""
    return _SHOULD.sub("must ", message.removeprefix("Value error, ")).replace(" after validation", "", 1)
