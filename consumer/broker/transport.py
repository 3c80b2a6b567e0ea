"""Passes every frame through ``frames.decodable`` before aiormq reads it.

aiormq has no setting for frames that pamqp cannot decode, but it accepts a transport. This is aiormq's own transport
with a reader that returns whole frames. ``tests/broker/test_frames.py`` fails when a new version of the library can
handle these frames. Then this module and the repairs in ``frames`` can go.
"""

import asyncio
from typing import Any, Final, cast

import aio_pika
from aio_pika.abc import ConnectionParameter
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp import constants
from yarl import URL

from consumer.broker.errors import BrokerUntrusted
from consumer.broker.frames import decodable

_START: Final = constants.FRAME_HEADER_SIZE

_TLS_ALERT: Final = b"\x15\x03"
"""The beginning of the answer of a port for TLS to a client without it. AMQP has no frame of this type."""


class _Frames:
    """The part of ``StreamReader`` that aiormq uses, for a stream of decodable frames."""

    def __init__(self, reader: asyncio.StreamReader, place: str) -> None:
        self._reader = reader
        self._place = place
        self._frame = b""
        self._at = 0

    def at_eof(self) -> bool:
        """Whether the stream has ended."""
        return self._at == len(self._frame) and self._reader.at_eof()

    async def readexactly(self, count: int) -> bytes:
        """Return this many bytes of the current frame. The library asks for a frame piece by piece."""
        if self._at == len(self._frame):
            self._frame, self._at = await self._next(), 0
        start, self._at = self._at, self._at + count
        return self._frame[start : self._at]

    async def _next(self) -> bytes:
        start = await self._reader.readexactly(_START)
        if start.startswith(constants.AMQP):
            return start  # the broker refuses our version of the protocol, and says so in no frame
        if start.startswith(_TLS_ALERT):
            raise BrokerUntrusted(
                f"{self._place} speaks TLS: write amqps://, or name the broker's port without TLS, usually 5672"
            )
        rest = await self._reader.readexactly(int.from_bytes(start[3:]) + 1)
        payload = decodable(start[0], rest[:-1])
        return start[:3] + len(payload).to_bytes(4) + payload + rest[-1:]


class _FrameTransport(TransportFactory):
    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        plain = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await plain.create(url, **options)
        return cast("asyncio.StreamReader", _Frames(reader, f"{url.host}:{url.port}")), writer


def _ours(_: object) -> TransportFactory:
    return _FrameTransport()


class TolerantConnection(aio_pika.Connection):
    """A connection that survives every message."""

    PARAMETERS = (
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter(name="transport_factory", parser=_ours, default="ours", is_kwarg=True),
    )
