"""HTTP over bare sockets, as little of it as there is: what asks shares the cores with what is asked."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

REQUEST_TIMEOUT = 60.0
"""The bound (s) of a request."""


class NotAnswered(RuntimeError):
    """A request was answered with another status than a success."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answers; the names of ``headers`` are in lower case."""

    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class KeptConnection:
    """A connection that is kept for one request after the other."""

    def __init__(self, http: "Http", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._http = http
        self._reader = reader
        self._writer = writer

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Response:
        """One request, whose answer is read to its ``Content-Length``.

        Raises:
            NotAnswered: the status is no success.
            TimeoutError: there was no answer within ``REQUEST_TIMEOUT``.
        """
        async with asyncio.timeout(REQUEST_TIMEOUT):
            self._writer.write(self._http.head(method, path, len(body), headers or {}) + body)
            head = await self._reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode("latin-1").split("\r\n")
            found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
            answer = Response(found, await self._reader.readexactly(int(found.get("content-length", 0))))
        if not status.split(maxsplit=2)[1].startswith("2"):
            raise NotAnswered(f"{method} {path}: {status} {answer.body.decode(errors='replace')[-500:]}")
        return answer


class Http:
    """Asks one server on loopback, with Basic authentication."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._authorization = base64.b64encode(f"{user}:{password}".encode()).decode()

    def head(self, method: str, path: str, length: int, headers: dict[str, str]) -> bytes:
        """The head of a request."""
        every = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Basic {self._authorization}",
            "Content-Type": "application/json",
            "Content-Length": str(length),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in (every | headers).items())
        return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[KeptConnection]:
        """A connection."""
        async with asyncio.timeout(REQUEST_TIMEOUT):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield KeptConnection(self, reader, writer)
        finally:
            writer.close()

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Response:
        """One request, with a connection of its own; raises as :meth:`KeptConnection.request`."""
        async with self.connection() as connection:
            return await connection.request(method, path, body, headers)

    async def answers(self, path: str) -> bool:
        """Whether a path is answered with a success."""
        try:
            await self.request("GET", path)
        except (OSError, NotAnswered, asyncio.IncompleteReadError):
            return False
        return True


def tool_call(session: str, tool: str, arguments: dict[str, Any]) -> bytes:
    """The body of SignalWire's ``POST /services/<service>/call``."""
    return json.dumps({"session_id": session, "tool": tool, "arguments": arguments}).encode()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
