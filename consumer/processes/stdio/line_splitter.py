"""Splits the output of a pipe into lines, in linear time and with a limit.

The framing is that of MCP's stdio transport (revision 2025-11-25, basic/transports: one JSON object a line, UTF-8).
Nothing here knows processes or sessions.
"""

DEFAULT_LINE_CAP = 16 * 1024 * 1024
"""The longest line in bytes that is accepted from a server."""


class LineTooLong(Exception):
    """A line is longer than the limit, so the beginning of the next message is unknown."""


class LineSplitter:
    """Splits a stream of chunks into lines, looking at every byte once."""

    def __init__(self, cap: int = DEFAULT_LINE_CAP) -> None:
        self._cap = cap
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without their ends. Raises :class:`LineTooLong`."""
        head, *rest = data.split(b"\n")
        self._size += len(head)
        if self._size > self._cap:
            raise LineTooLong
        self._parts.append(head)
        if not rest:
            return []
        lines = [b"".join(self._parts), *rest[:-1]]
        self._parts = [rest[-1]]
        self._size = len(rest[-1])
        return lines

    @property
    def pending(self) -> bytes:
        """The bytes of the line that has not ended yet."""
        return b"".join(self._parts)
