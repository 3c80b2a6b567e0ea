"""Reads a message's properties and headers from the library, and writes them for the wire.

Every value that was read can be written again unchanged: text that is not UTF-8, doubles, decimals, numbers of any
size. pamqp cannot encode some values that it has decoded, and writes doubles with half their digits. So this module
writes all headers. A message that cannot be forwarded or dead-lettered would be redelivered for ever.

Sources: AMQP 0-9-1, sections 4.2.3 to 4.2.6, and RabbitMQ's errata for the types of fields.
"""

import math
import struct
import uuid
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from aiormq import spec
from aiormq.abc import DeliveredMessage
from pamqp import encode

from consumer.broker.frames import short_string
from consumer.broker.message import Headers, Message

LONGEST_EXPIRATION: Final = 0xFFFFFFFF
"""The longest expiration (ms) that RabbitMQ takes; it closes the channel for a longer one."""

_OURS: Final = "x-mcp-"
"""The prefix of our headers, which are dropped last when there is no room for all."""

_FLAGS: Final = spec.Basic.Properties.flags
_ALWAYS: Final = _FLAGS["delivery_mode"] | _FLAGS["message_id"]
_FIXED: Final = 14 + 4
"""The size in bytes of a content header without any property: class, weight, size and flags; and of an empty table."""

_UNBOUNDED: Final = 1 << 20
"""The room for a content header if the broker does not limit frames (``frame_max`` = 0)."""


def received(delivered: DeliveredMessage) -> Message:
    """Return the message of a delivery. An ``expiration`` that is no number is None, a missing message id is ``""``."""
    properties = delivered.header.properties
    timestamp, expiration = properties.timestamp, properties.expiration
    return Message(
        body=bytes(delivered.body),
        type=properties.message_type,
        message_id=properties.message_id or "",
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        expiration=int(expiration) if expiration and expiration.isascii() and expiration.isdigit() else None,
        headers=dict(properties.headers or {}),
        content_type=properties.content_type,
        timestamp=timestamp if isinstance(timestamp, datetime) else None,
        persistent=properties.delivery_mode == 2,
    )


class Encoded(spec.Basic.Properties):
    """Properties that are already encoded. The library reads only their message id, to match returned messages."""

    def __init__(self, message_id: str, wire: bytes, left_out: list[str]) -> None:
        super().__init__(message_id=message_id)
        self._wire = wire
        self.left_out = left_out
        """The names of the headers for which there was no room."""

    def marshal(self) -> bytes:
        """Return the properties as they follow the body size in a content header."""
        return self._wire


def encoded(message: Message, more: Mapping[str, str], room: int, user: str | None = None) -> Encoded:
    """Encode the properties of ``message``, with ``more`` headers, in at most ``room`` bytes (0: no limit).

    A ``user`` is written as ``user_id``. It must be the user of the connection, or the broker closes the channel.

    A header frame cannot be split, and RabbitMQ closes the connection for one that is too large. If there is no room,
    the largest foreign headers are left out first, and then the largest of ours.
    """
    message_id = message.message_id or uuid.uuid4().hex
    flags = _ALWAYS
    before, behind = b"", b"\2" if message.persistent else b"\1"
    if message.content_type:
        flags |= _FLAGS["content_type"]
        before = _known_string(message.content_type)
    if message.correlation_id:
        flags |= _FLAGS["correlation_id"]
        behind += short_string(message.correlation_id)
    if message.reply_to:
        flags |= _FLAGS["reply_to"]
        behind += _known_string(message.reply_to)
    if message.expiration is not None:
        flags |= _FLAGS["expiration"]
        behind += _expiration(message.expiration)
    behind += short_string(message_id)
    if seconds := _seconds(message.timestamp):
        flags |= _FLAGS["timestamp"]
        behind += seconds
    if message.type:
        flags |= _FLAGS["message_type"]
        behind += _known_string(message.type)
    if user:
        flags |= _FLAGS["user_id"]
        behind += _known_string(user)
    table, left_out = b"", list[str]()
    if headers := {**message.headers, **more}:
        left = (room if room > 0 else _UNBOUNDED) - _FIXED - len(before) - len(behind)
        table, left_out = _table(headers, left)
        flags |= _FLAGS["headers"]
    return Encoded(message_id, flags.to_bytes(2) + before + table + behind, left_out)


_known_string = lru_cache(maxsize=1024)(short_string)
"""Encoded short strings: message types, names of headers and queues. There are few, and each is written often."""


def _expiration(milliseconds: int) -> bytes:
    return short_string(str(min(max(milliseconds, 0), LONGEST_EXPIRATION)))


def _seconds(moment: datetime | None) -> bytes:
    """Encode a timestamp in whole seconds; empty if there is none, or if it is before 1970."""
    if moment is None:
        return b""
    try:
        return int(moment.timestamp()).to_bytes(8)
    except (OverflowError, ValueError, OSError):
        return b""


def _table(headers: Headers, room: int) -> tuple[bytes, list[str]]:
    """Encode the headers in at most ``room`` bytes. Return also the names of those that were left out."""
    fields = {name: _known_string(name) + _field(value) for name, value in headers.items()}
    size = sum(map(len, fields.values()))
    left_out: list[str] = []
    if size > room:
        for name in sorted(fields, key=lambda one: (one.startswith(_OURS), -len(fields[one]))):
            if size <= room:
                break
            size -= len(fields.pop(name))
            left_out.append(name)
    return struct.pack(">I", size) + b"".join(fields.values()), left_out


def _long(value: bytes | bytearray) -> bytes:
    return struct.pack(">I", len(value)) + value


def _field(value: Any) -> bytes:
    """Encode a field's value with its type. A value without a type in AMQP is written as text."""
    match value:
        case str():
            return b"S" + _long(value.encode("utf-8", "replace"))
        case None:
            return b"V"
        case bool() | int():
            return _number(value)
        case float() if math.isfinite(value):  # RabbitMQ closes the connection for one that is no number
            return b"d" + struct.pack(">d", value)
        case bytes():
            return b"S" + _long(value)
        case bytearray():
            return b"x" + _long(value)
        case datetime():
            return b"T" + _seconds(value) if _seconds(value) else _field(value.isoformat())
        case dict():
            return b"F" + _long(b"".join(short_string(str(name)) + _field(one) for name, one in value.items()))
        case list() | tuple():
            return b"A" + _long(b"".join(map(_field, value)))
        case Decimal():
            return _decimal(value)
        case _:
            return _field(str(value))


def _number(value: int) -> bytes:
    try:
        return encode.encode_table_value(value)
    except TypeError:  # beyond 64 bits
        return _field(str(value))


def _decimal(value: Decimal) -> bytes:
    try:
        return encode.encode_table_value(value)
    except (TypeError, ArithmeticError):  # no number, or more digits than 32 bits have
        return _field(str(value))
