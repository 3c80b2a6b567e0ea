"""The end of a server's stderr output, limited in size and without secrets."""

import re
from itertools import dropwhile

from consumer.observability.masking import mask_text

MAX_BYTES = 16 * 1024
MAX_LINES = 64

_NODE_VERSION = re.compile(r"Node\.js v\d\S*")
_NODE_ERROR = re.compile(r"\w*Error(?: \[\w+\])?: ")
"""``TypeError: ...``, ``Error [ERR_MODULE_NOT_FOUND]: ...`` at the start of a line."""
_ERROR = re.compile(r"(?:\w*error|fatal)(?: ?\[\w+\])?: ", re.IGNORECASE)
"""``error: Failed to fetch ...``, ``error[E0425]: ...``, ``TypeError: ...`` at the start of a line."""
_BEHIND_ERROR = re.compile(r"\s+\S|(?:caused by|hint|help|note|tip|for more information)\b", re.IGNORECASE)
"""What programs such as uvx write below their error: causes, hints, and indented lines."""


class StderrTail:
    """Keeps the end of a stream of bytes: at most 16 KiB and 64 lines."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next chunk."""
        self._kept += data[-MAX_BYTES:]
        if len(self._kept) > 2 * MAX_BYTES:
            del self._kept[:-MAX_BYTES]

    def note(self, sentence: str) -> None:
        """Add a line of our own: why the worker ended the server."""
        start = b"" if not self._kept or self._kept.endswith(b"\n") else b"\n"
        self.feed(start + f"mcp-sessions: {sentence}\n".encode())

    def text(self) -> str:
        """Return the tail as text, with undecodable bytes replaced and secrets masked, without the final line end."""
        lines = bytes(self._kept[-MAX_BYTES:]).decode("utf-8", "replace").splitlines()
        return mask_text("\n".join(lines[-MAX_LINES:]), MAX_BYTES)

    def last_line(self) -> str:
        """Return the last meaningful line: of a traceback, or above hints, the error itself."""
        lines = [line for line in reversed(self.text().splitlines()) if line.strip()]
        if lines and _NODE_VERSION.fullmatch(lines[0]):  # behind the error, its stack and its fields
            lines = [line for line in lines if _NODE_ERROR.match(line)] or lines
        above = list(dropwhile(_BEHIND_ERROR.match, lines))
        if above and _ERROR.match(above[0]):
            lines = above
        return lines[0].strip() if lines else ""
