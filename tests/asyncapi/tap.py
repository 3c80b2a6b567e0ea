"""A way to the broker that keeps every message published over it, and can be cut.

It reads AMQP 0-9-1 as it passes: what goes through the default exchange, to inboxes and to reply addresses can be bound
by nobody, and a queue bound beside an owner's would keep messages from the placer.
"""

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from yarl import URL

_PROTOCOL_HEADER = 8
_FRAME_HEADER = struct.Struct(">BHI")


@dataclass(frozen=True)
class Published:
    """One message as its publisher sent it."""

    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes

    @property
    def headers(self) -> dict[str, Any]:
        """Properties and headers by their names, as the AsyncAPI document lists them."""
        known = self.properties
        moment = known.timestamp
        named = {
            "type": known.message_type,
            "content_type": known.content_type,
            "message_id": known.message_id,
            "reply_to": known.reply_to,
            "correlation_id": known.correlation_id,
            "expiration": known.expiration,
            "timestamp": None if moment is None else int(moment.timestamp()),
            **(known.headers or {}),
        }
        return {name: value for name, value in named.items() if value is not None}


class _Reader:
    """Puts the messages of one connection together."""

    def __init__(self, heard: Callable[[Published], None]) -> None:
        self._heard = heard
        self._bytes = b""
        self._greeted = False
        self._open: dict[int, tuple[Basic.Publish, ContentHeader | None, bytes]] = {}

    def feed(self, chunk: bytes) -> None:
        self._bytes += chunk
        if not self._greeted and len(self._bytes) >= _PROTOCOL_HEADER:
            self._greeted, self._bytes = True, self._bytes[_PROTOCOL_HEADER:]
        while self._greeted and len(self._bytes) >= _FRAME_HEADER.size:
            size = _FRAME_HEADER.size + _FRAME_HEADER.unpack_from(self._bytes)[2] + 1
            if len(self._bytes) < size:
                break
            whole, self._bytes = self._bytes[:size], self._bytes[size:]
            _, channel, read = frame.unmarshal(whole)
            self._take(channel, read)

    def _take(self, channel: int, read: Any) -> None:
        if isinstance(read, Basic.Publish):
            self._open[channel] = (read, None, b"")
            return
        if not isinstance(read, ContentHeader | ContentBody):
            return
        publish, header, body = self._open[channel]
        if isinstance(read, ContentHeader):
            header = read
        else:
            body += read.value
        assert header is not None
        self._open[channel] = (publish, header, body)
        if len(body) == header.body_size:
            self._heard(Published(publish.exchange or "", publish.routing_key or "", header.properties, body))


class Tap:
    """Listens on ``url`` and passes everything on to the broker while it is not cut."""

    def __init__(self, url: str, heard: Callable[[Published], None]) -> None:
        self._to = URL(url)
        self._heard = heard
        self._whole = True
        self._served: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        host, port = self._server.sockets[0].getsockname()
        return str(self._to.with_host(host).with_port(port))

    async def cut(self) -> None:
        """Close every connection and let none through until ``mend``."""
        self._whole = False
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)

    def mend(self) -> None:
        self._whole = True

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="tap")
        self._served.add(task)
        task.add_done_callback(self._served.discard)
        task.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection(self._to.host, self._to.port or 5672)
        except OSError:  # as if the broker had hung up
            return
        ways = [
            asyncio.create_task(_pass(reader, to_writer, _Reader(self._heard).feed), name="tap-out"),
            asyncio.create_task(_pass(to_reader, writer, lambda _: None), name="tap-in"),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_writer.close()  # first: who cuts twice interrupts the waiting
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Callable[[bytes], None]) -> None:
    with suppress(OSError):
        while chunk := await reader.read(1 << 16):
            seen(chunk)
            writer.write(chunk)
            await writer.drain()
