"""Logs a server's stderr at debug level, for tools that fail while their server lives on."""

from time import monotonic

import structlog

log = structlog.get_logger(__name__)

MAX_LINE = 1_000
"""The most bytes of one line. A longer one is cut."""

MAX_LINES = 50
"""The most lines of one server in a second. Of more, the last ones are logged, and the others counted."""


class StderrLog:
    """Logs each line of a server's stderr, within limits. The log's processors mask secrets in it."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._rest = b""
        self._second = 0.0
        self._room = MAX_LINES
        self._left_out = 0

    def feed(self, data: bytes, pid: int) -> None:
        """Take the next chunk from the process with this id."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:MAX_LINE]
        texts = [text for line in lines if (text := line[:MAX_LINE].decode("utf-8", "replace").rstrip())]
        if (now := monotonic()) - self._second >= 1.0:
            self._second, self._room = now, MAX_LINES
        fitting = texts[len(texts) - min(len(texts), self._room) :]
        self._room -= len(fitting)
        self._left_out += len(texts) - len(fitting)
        for text in fitting:
            more = {"left_out": self._left_out} if self._left_out else {}
            self._left_out = 0
            log.debug("process.stderr", service=self._service, pid=pid, line=text, **more)
