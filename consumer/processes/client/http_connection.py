"""A connection to a server at a URL, by streamable HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import anyio
import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest
from pydantic_core import from_json

from consumer.observability.masking import mask_text
from consumer.processes.client.connection import Connection
from consumer.processes.client.http_answers import FORGOTTEN, AnsweringClient, status_line
from consumer.processes.client.start_retries import Setback, refused, too_slow, words_of
from consumer.processes.loop_share import NOTIFICATION, TALKS, LoopShare, price_of
from consumer.processes.service import MCPService
from consumer.processes.stdio.line_splitter import DEFAULT_LINE_CAP
from consumer.processes.stdio.stdio_streams import NotSerializable, Stream
from consumer.sessions.session import ProcessExit
from schemas.errors import StartTimeout

if TYPE_CHECKING:
    from mcp.shared._stream_protocols import ReadStream, WriteStream  # only the SDK's typing names them

HTTP_TIMEOUT = httpx2.Timeout(10.0, read=600.0)
"""Seconds for connecting, writing and waiting for a free connection. Each call has its own limit for the answer."""

LAST_ANSWERS = 0.1
"""Seconds in which received answers still reach their callers after the server has forgotten the session."""


class _CheckedWrites(Stream):
    """The stream of messages to the server. It refuses those that cannot be written as JSON.

    Such a message would end the connection, because the SDK writes it in another task.
    """

    def __init__(self, inner: "WriteStream[SessionMessage]") -> None:
        self._inner = inner

    async def send(self, item: SessionMessage, /) -> None:
        """Send one message. Raises :class:`NotSerializable` if it is no JSON. NaN and infinity are written as null."""
        message = item.message
        if isinstance(message, JSONRPCRequest | JSONRPCNotification) and message.params is not None:
            try:
                message.params = from_json(message.model_dump_json(include={"params"}))["params"]
            except ValueError as cause:
                raise NotSerializable(str(cause)) from cause
        await self._inner.send(item)

    async def aclose(self) -> None:
        """Close the stream for sending."""
        await self._inner.aclose()


class FairStream(Stream):
    """The stream of messages from the server, no faster than its share of the event loop allows."""

    def __init__(
        self, inner: "ReadStream[SessionMessage | Exception]", share: LoopShare, talks: Callable[[], None]
    ) -> None:
        self._inner, self._share, self._talks = inner, share, talks

    async def receive(self) -> SessionMessage | Exception:
        """Receive the next message."""
        item = await self._inner.receive()
        self._share.spend(price_of(item.message) if isinstance(item, SessionMessage) else NOTIFICATION)
        if self._share.is_overdrawn:
            self._talks()
        if self._share.rest:
            await asyncio.sleep(self._share.rest)
        return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Close the stream for receiving."""
        await self._inner.aclose()


class HttpConnection(Connection):
    """The session with a remote server. It lasts while the server knows it and is reachable."""

    def __init__(self, service: MCPService) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._why_forgotten = ""
        self._gone: asyncio.Future[ProcessExit] = self._loop.create_future()
        self._share = LoopShare()
        self.http = AnsweringClient(
            forgotten=self._forget,
            talks=self._give_up,
            share=self._share,
            cap=service.longest_answer,
            headers=service.headers,
            timeout=HTTP_TIMEOUT,
        )

    def attach(self, read: "ReadStream[SessionMessage | Exception]", write: "WriteStream[SessionMessage]") -> None:
        """Use these streams of the SDK's transport."""
        self.read, self.write = FairStream(read, self._share, self._give_up), _CheckedWrites(write)

    @property
    def is_alive(self) -> bool:
        """Whether the session may still be open."""
        return not self.forgotten and not self._gone.done()

    @property
    def last_words(self) -> str:
        """The reason why the server forgot the session."""
        return f"{FORGOTTEN} ({self._why_forgotten})" if self.forgotten else ""

    @property
    def forgotten(self) -> bool:
        """Whether the server has said that it does not know the session."""
        return bool(self._why_forgotten)

    def _forget(self, why: str) -> None:
        if not self.forgotten:
            self._why_forgotten = mask_text(why)
            self._loop.call_later(LAST_ANSWERS, self._end, self.last_words)

    def _give_up(self) -> None:
        self._end(TALKS)

    def _end(self, why: str) -> None:
        if not self._gone.done():
            self._gone.set_result(ProcessExit(exit_code=None, signal=None, stderr=why))

    async def setback(self, fault: Exception, *, probed: bool) -> Setback:  # noqa: ARG002 - it did not end of it
        """Return the server's refusal, with its HTTP status."""
        status = self.http.refused
        if status is None:
            return Setback(refused(self._service, fault, ""))
        said = f"HTTP {status_line(status)}"
        clue = "" if said in words_of(fault) else f" ({said})"
        return Setback(refused(self._service, fault, "", clue=clue, status=status))

    def too_slow(self) -> StartTimeout:
        """Return the error for a handshake that took too long."""
        return too_slow(self._service, "")

    def hurry(self) -> None:
        """Do nothing: this worker did not start the server."""

    def begin(self, gone: Callable[[ProcessExit], None]) -> None:
        """Call ``gone`` when the session ends."""
        self._gone.add_done_callback(lambda ended: gone(ended.result()))

    def break_off(self, cause: BaseException) -> None:
        """Note that the server is no longer reachable."""
        self._end(mask_text(f"connection lost: {cause!r}"))

    async def wait_gone(self, timeout: float) -> ProcessExit | None:
        """Wait until the session is over."""
        await asyncio.wait({self._gone}, timeout=timeout)
        return self._gone.result() if self._gone.done() else None

    def kill(self) -> None:
        """Do nothing: this worker did not start the server."""


@asynccontextmanager
async def over_http(service: MCPService) -> AsyncIterator[HttpConnection]:
    """Connect to a URL for the block. Afterwards the server is told that the session is over."""
    assert service.url is not None
    link = HttpConnection(service)
    async with (
        link.http as http,
        streamable_http_client(service.url, http_client=http, max_sse_event_size=DEFAULT_LINE_CAP) as (read, write),
    ):
        link.attach(read, write)
        yield link
