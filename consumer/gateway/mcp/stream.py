"""Sends an answer that may have messages before it, as JSON or as server-sent events.

The stream begins with the first message, or when the answer takes longer than ``QUIET``, because a proxy closes an idle
connection. Until then an answer can still have its own status.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from consumer.concurrency.task_set import cancel_and_wait
from consumer.gateway.exchange import JSON_TYPE

QUIET: Final = 15.0
"""How long (s) a stream may be idle."""

WATCHED_AFTER: Final = 0.1
"""After how long (s) without an answer to check whether the client is still connected."""

STREAM_TYPE: Final = "text/event-stream"
STREAM_HEADERS: Final = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
PING: Final = b": ping\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer: the bytes of its message, and its status and headers if it is not streamed."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Hearing:
    """The interim messages for the sender of a request; without a stream there are none."""

    def __init__(self, *, streams: bool) -> None:
        self.streams = streams
        self._told: asyncio.Queue[bytes | None] = asyncio.Queue()

    def tell(self, message: bytes) -> None:
        """Send the client a JSON-RPC message."""
        if self.streams:
            self._told.put_nowait(message)

    def end(self) -> None:
        """End the stream to the client."""
        self._told.put_nowait(None)

    async def taken(self) -> None:
        """Wait until the client has read what was sent, so that a slow reader gets no more."""
        await self._told.join()

    async def events(self) -> AsyncIterator[bytes]:
        """Yield the messages until the end as server-sent events, and a comment after each silence."""
        while True:
            try:
                async with asyncio.timeout(QUIET):
                    message = await self._told.get()
            except TimeoutError:
                yield PING
                continue
            if message is None:
                return
            yield event_of(message)
            self._told.task_done()


class Answering(Response):
    """The response with an answer and the messages before it.

    If the client disconnects before the answer, ``left`` is awaited.
    """

    def __init__(
        self,
        answer: Callable[[], Awaitable[Answered]],
        hearing: Hearing,
        left: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__()
        self._answer = answer
        self._hearing = hearing
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer and the messages before it."""
        if not self._hearing.streams:
            answer = await self._while_there(receive)
            if answer is not None:
                await self._whole(answer)(scope, receive, send)
            elif self._left is not None:
                await self._left()
            return
        answering = asyncio.ensure_future(self._answer())
        leaving = asyncio.ensure_future(_left(receive))
        ends: tuple[asyncio.Future[Any], ...] = (answering, leaving)
        for one in ends:
            one.add_done_callback(lambda _: self._hearing.end())
        try:
            streamed = self._hearing.streams and await self._stream(send)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                if self._left is not None:
                    await self._left()
                return
            answer = answering.result()
            if streamed:
                await send({"type": "http.response.body", "body": event_of(answer.body), "more_body": False})
            else:
                await self._whole(answer)(scope, receive, send)
        finally:
            await cancel_and_wait(*ends)

    @staticmethod
    def _whole(answer: Answered) -> Response:
        return Response(answer.body, answer.status, answer.headers, JSON_TYPE)

    async def _while_there(self, receive: Receive) -> Answered | None:
        """Return the answer; None if the client disconnected before."""
        loop = asyncio.get_running_loop()
        watching: asyncio.Task[None] | None = None

        def give_up(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the answer is there
                bound.reschedule(loop.time())

        def watch() -> None:
            nonlocal watching
            watching = loop.create_task(_left(receive), name="mcp-client-there")
            watching.add_done_callback(give_up)

        timer = loop.call_later(WATCHED_AFTER, watch)  # a task would cost each answer that is quick more
        try:
            async with asyncio.timeout(None) as bound:
                return await self._answer()
        except TimeoutError:
            if not bound.expired():
                raise
            return None
        finally:
            timer.cancel()
            if watching is not None:
                await cancel_and_wait(watching)

    async def _stream(self, send: Send) -> bool:
        """Send the messages before the answer. Return whether there were any, so that the stream has begun."""
        began = False
        async for event in self._hearing.events():
            if not began:
                await _begin(send)
                began = True
            await send({"type": "http.response.body", "body": event, "more_body": True})
        return began


async def _begin(send: Send) -> None:
    start = Response(media_type=STREAM_TYPE, headers=STREAM_HEADERS)
    headers = [(name, value) for name, value in start.raw_headers if name != b"content-length"]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event_of(message: bytes) -> bytes:
    """Encode a message as a server-sent event."""
    return b"event: message\r\ndata: " + message + b"\r\n\r\n"
