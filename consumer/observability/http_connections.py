"""HTTP connections with time limits for everything that a client can delay, for h11 and httptools alike.

uvicorn bounds the time between requests and nothing else: a client that sends its request slowly, that does not read
its answer, or that opens connections and says nothing would hold a descriptor for ever.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

Parser = Literal["httptools", "h11"]


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """The limits of connections."""

    max_connections: int
    """The most connections at once. For one more, an idle one is closed."""
    head_timeout: float
    """How long (s) the head of a request may take. The first one counts from the moment of connecting."""
    read_timeout: float
    """How long (s) a client may take to read a response."""
    lifetime: float | None = None
    """How long (s) a connection may last, whatever happens on it."""
    max_head: int = 64 << 10
    """The most bytes of an incomplete head of a request."""
    refusal: bytes = b""
    """The answer to a connection beyond the limit if none is idle. Empty: it is closed without one."""


class SignalFreeServer(uvicorn.Server):
    """An HTTP server without signal handlers, because the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not install signal handlers."""
        yield


GOODBYE = 0.5
"""How long (s) a connection over TLS may take to close when the server does. TLS waits for the client's own goodbye, up
to 30 s, and an idle client does not say it before it uses the connection again."""

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _AnswerTransport:
    """A transport that sends the head of an answer and what follows it in one packet.

    It ignores writes and reads while it is closing. asyncio's transport does the same. uvloop's raises, so an answer to
    a client that has disconnected would fail.
    """

    __slots__ = ("_head", "_loop", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.is_closing = transport.is_closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return a value of the transport, but no socket: uvicorn would make two new ones to ask for addresses.

        Without it uvicorn takes the addresses from the transport, if each is a host and a port; IPv6 has four parts.
        """
        if name == "socket":
            return default
        found = self._transport.get_extra_info(name, default)
        return found[:2] if name in ("peername", "sockname") and isinstance(found, tuple) else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._send_head)
            return
        if not self.is_closing():
            self._transport.write(data)

    def _send_head(self) -> None:
        """Send a head that is not followed by more data at once."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self._send_head()
        self._transport.close()

    def pause_reading(self) -> None:
        if not self.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.is_closing():
            self._transport.resume_reading()


# To a type checker a connection is one over h11: uvicorn's two protocols have the same attributes and no common type.
if TYPE_CHECKING:
    _Protocol = H11Protocol
else:
    _Protocol = object


class _Bounded(_Protocol):
    """Adds the limits to a protocol of uvicorn."""

    bounds: ConnectionBounds
    opened_at = 0.0
    _head_bytes = 0
    _refused = False
    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None
    _life_timer: asyncio.TimerHandle | None = None
    _goodbye_timer: asyncio.TimerHandle | None = None
    _leaving = False

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", _AnswerTransport(transport, self.loop)))
        self.opened_at = self.loop.time()
        self._head_timer = self.loop.call_later(self.bounds.head_timeout, transport.abort)
        if self.bounds.lifetime is not None:
            self._life_timer = self.loop.call_later(self.bounds.lifetime, transport.abort)
        if len(self.connections) > self.bounds.max_connections:
            self._make_room()

    def _make_room(self) -> None:
        """Close the oldest idle connection, first those that never sent a request.

        If there is none, refuse this one.
        """
        others = [one for one in self.connections if isinstance(one, _Bounded) and one is not self and one.is_idle]
        if others:
            min(others, key=lambda one: (one.cycle is not None, one.opened_at)).transport.abort()
        elif self.bounds.refusal:
            self._refused = True  # answered when it has asked: before that, closing would take the answer back
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            if not self.transport.is_closing():
                self.transport.write(self.bounds.refusal)
                self.transport.close()
            return
        before = self.cycle
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is not before:
            self._head_bytes = 0
            self._head_timer = _cancel(self._head_timer)
        elif self.is_idle:
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.max_head:
                self.transport.write(TOO_LARGE)
                self.transport.close()
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(self.bounds.head_timeout, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        if self.is_idle:
            super().send_400_response(msg)
        else:  # the answer to what came before is under way; there is no other
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._read_timer is None:
            self._read_timer = self.loop.call_later(self.bounds.read_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_timer = _cancel(self._read_timer)

    def shutdown(self) -> None:
        super().shutdown()
        self._leaving = True
        self._bound_goodbye()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._bound_goodbye()

    def _bound_goodbye(self) -> None:
        """Give an idle connection a moment to close when the server does."""
        if self._leaving and self.scheme == "https" and self.is_idle and self._goodbye_timer is None:
            self._goodbye_timer = self.loop.call_later(GOODBYE, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for timer in (self._head_timer, self._read_timer, self._life_timer, self._goodbye_timer):
            _cancel(timer)


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer, and return None in its place."""
    if timer is not None:
        timer.cancel()
    return None


def bounded(bounds: ConnectionBounds, parser: Parser = "h11") -> type[asyncio.Protocol]:
    """Return a protocol for uvicorn's ``http`` with these limits."""
    base: Any = H11Protocol
    if parser == "httptools":
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415 - an extra

        base = HttpToolsProtocol
    return type("Connection", (_Bounded, base), {"bounds": bounds})


def fastest_parser() -> Parser:
    """Return the faster parser if it is installed (``pip install 'mcp-sessions[fast]'``)."""
    try:
        import httptools  # noqa: F401, PLC0415 - an extra
    except ImportError:
        return "h11"
    return "httptools"
