"""Encodes a message as AMQP frames, so that it can be written at once when no confirmation is needed.

aiormq builds and packs an object for each frame, takes a lock and sets two timeouts for each publication: half of what
a tool call costs its caller. Without confirmations there are no delivery tags to keep in order, so the frames can go
straight into the connection's write queue, which both ``write_queue`` and ``ChannelFrame`` of ``aiormq.abc`` offer.
``tests/broker/test_publish_frames.py`` compares them with those of the library.

Source: AMQP 0-9-1, sections 2.3.5, 4.2.3 and 4.2.6.
"""

import struct
from functools import lru_cache
from typing import Final

from aiormq.abc import ChannelFrame
from pamqp import commands

_PUBLISH: Final = struct.pack(">HHH", 60, 40, 0)
"""Class and method of ``basic.publish``, and the short that is reserved in it."""

_BITS: Final = {False: b"\0", True: b"\1"}
"""The flag bits of a publication: mandatory or not. It is never immediate."""

_HEADER: Final = struct.Struct(">HHQ")
_FRAME: Final = struct.Struct(">BHI")
_METHOD, _CONTENT_HEADER, _BODY = 1, 2, 3
_END: Final = b"\xce"
_CLASS: Final = 60


def published(
    channel: int,
    exchange: str,
    routing_key: str,
    properties: bytes,
    body: bytes,
    most: int,
    *,
    mandatory: bool = False,
) -> ChannelFrame:
    """Return the frames of one publication on ``channel``. A body frame has at most ``most`` bytes, or all if 0.

    The broker returns a ``mandatory`` message that no queue takes.

    Raises:
        ValueError: the exchange or routing key is not valid in AMQP.
    """
    method = _method(exchange, routing_key, mandatory)
    parts = [
        _FRAME.pack(_METHOD, channel, len(method)),
        method,
        _END,
        _FRAME.pack(_CONTENT_HEADER, channel, _HEADER.size + len(properties)),
        _HEADER.pack(_CLASS, 0, len(body)),
        properties,
        _END,
    ]
    step = most or len(body) or 1
    for start in range(0, len(body), step):
        piece = body if len(body) <= step else body[start : start + step]
        parts += (_FRAME.pack(_BODY, channel, len(piece)), piece, _END)
    return ChannelFrame(payload=b"".join(parts), should_close=False)


@lru_cache(maxsize=1024)
def _method(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """Return the payload of ``basic.publish``. Workers write to few addresses without confirmations, and often."""
    commands.Basic.Publish(exchange=exchange, routing_key=routing_key)  # which looks at both
    return _PUBLISH + _short(exchange) + _short(routing_key) + _BITS[mandatory]


def _short(text: str) -> bytes:
    value = text.encode()
    if len(value) > 255:
        raise ValueError(f"{text[:20]!r}... is longer than 255 bytes")
    return bytes((len(value),)) + value
