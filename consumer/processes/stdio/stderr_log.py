"""What a server writes to stderr, as debug lines of our log: for a tool that fails while its server lives on."""

from time import monotonic

import structlog

log = structlog.get_logger(__name__)

MAX_LINE = 1_000
"""Bytes of one line; what is longer is cut."""

MAX_LINES = 50
"""Lines of one server in a second; of more at once the last ones are logged, and the others counted."""


class StderrLog:
    """Logs each line of a server's stderr, within bounds. The chain of the log masks secrets in it."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._rest = b""
        self._second = 0.0
        self._room = MAX_LINES
        self._left_out = 0

    def feed(self, data: bytes, pid: int) -> None:
        """Take the next chunk, of the process with this number."""
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
