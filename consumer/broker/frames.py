"""Repairs AMQP frames that the library could not decode. Pure: bytes in, bytes out.

pamqp decodes properties and headers while aiormq reads, before anybody can look at them. A frame that it cannot decode
(a timestamp in microseconds, text that is not UTF-8, a table with hundreds of levels) ends the connection with every
call on it, and its redelivery ends the next one. RabbitMQ accepts all of that from any publisher.

``decodable`` returns what pamqp can decode, and exactly what came if that is so already. It changes:

* Text that is not UTF-8 has U+FFFD in place of each wrong byte, cut to the 255 bytes of a short string.
* A timestamp property in microseconds or nanoseconds becomes seconds; any other that is no date is left out.
* A timestamp in a table that is no date becomes the same number.
* A table or an array below ``DEPTH`` levels becomes void; of more than ``MOST_FIELDS`` fields ``FIELDS`` are kept.
* What cannot be delimited (an unknown type, a length beyond the end) is left out with what follows it there.

Sources: AMQP 0-9-1, sections 4.2.3 to 4.2.6, and RabbitMQ's errata for the types of fields.
"""

import struct
from typing import Final, cast

from pamqp import base, commands, constants

DEPTH: Final = 32
"""How deep tables and arrays may be nested. pamqp needs two Python frames for each level."""

FIELDS: Final = 512
"""How many fields of a table that has too many are kept. Fields of nested tables count."""

MOST_FIELDS: Final = 2 * FIELDS
"""How many fields are too many. pamqp copies the rest of a table for each field.

This is more than ``FIELDS``, so that a shortened table has room for headers that are added when the message is
forwarded or dead-lettered.
"""

SHORT: Final = 255
"""The most bytes of a short string."""

_LATEST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999. pamqp takes what is above 2**32 for milliseconds, and dates end there."""

_EARLIEST_S: Final = 1_000_000_000
_LATEST_S: Final = 0xFFFFFFFF
"""Seconds between 2001 and 2106. A timestamp in a finer unit is accepted if it falls into this time."""

_TABLE, _ARRAY, _TIMESTAMP, _NUMBER, _VOID = b"FATlV"
_LONG, _NESTED, _DATE, _UNKNOWN = -1, -2, -3, -4


def _sizes() -> list[int]:
    sizes = [_UNKNOWN] * 256
    for types, size in ((b"V\0", 0), (b"tbB", 1), (b"su", 2), (b"iIf", 4), (b"D", 5), (b"lLd", 8)):
        for kind in types:
            sizes[kind] = size
    for types, kind_of_size in ((b"Sx", _LONG), (b"FA", _NESTED), (b"T", _DATE)):
        for kind in types:
            sizes[kind] = kind_of_size
    return sizes


_SIZES: Final = _sizes()
"""The size in bytes of a field's value by its type, or a function that finds it out."""

_PROPERTIES: Final = tuple(
    (commands.Basic.Properties.flags[name], commands.Basic.Properties.amqp_type(name))
    for name in commands.Basic.Properties.attributes()
)
"""Flag and type of each property, in their order on the wire."""

_FLAGS: Final = sum(flag for flag, _ in _PROPERTIES)
_HEAD: Final = 12
"""The size in bytes of a content header before the flags: class, weight, size of the body."""

_METHODS: Final = cast("dict[int, type[base.Frame]]", commands.INDEX_MAPPING)
_WITH_TEXT: Final = frozenset(
    index
    for index, method in _METHODS.items()
    if {"shortstr", "table"} & {method.amqp_type(name) for name in method.attributes()}
)
_DELIVER: Final = commands.Basic.Deliver.index
_WIDTHS: Final = {"octet": 1, "short": 2, "long": 4, "longlong": 8, "timestamp": 8}


def decodable(kind: int, payload: bytes) -> bytes:
    """Return the payload of a frame of this kind (AMQP 0-9-1, 2.3.5) in a form that pamqp can decode."""
    if kind == constants.FRAME_HEADER:
        return payload if _is_sound(payload) else _header(payload)
    if kind == constants.FRAME_METHOD:
        index = int.from_bytes(payload[:4])
        if index == _DELIVER:
            # The consumer tag, a delivery tag and a bit, exchange and routing key.
            tag = payload[4] + 5
            sound = payload[tag + 9 :].isascii() and payload[5:tag].isascii()
            return payload if sound else _method(index, payload)
        return _method(index, payload) if index in _WITH_TEXT else payload
    return payload


def shortened(text: str, most: int = SHORT) -> str:
    """Cut ``text`` to at most this many bytes of UTF-8, without half a character at its end."""
    return text if len(text) * 4 <= most else text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def short_string(text: str) -> bytes:
    """Encode ``text`` as an AMQP short string with its length."""
    value = text.encode("utf-8", "replace")
    if len(value) > SHORT:
        value = shortened(text).encode()
    return bytes((len(value),)) + value


# Looking, which is all that most messages cost.


def _is_sound(payload: bytes) -> bool:
    """Return whether a content header is certainly decodable: its short strings are ASCII, and its lengths fit."""
    try:
        flags = payload[12] << 8 | payload[13]
        if flags & 1:
            return False
        at = 14
        for flag, kind in _PROPERTIES:
            if not flags & flag:
                continue
            if kind == "shortstr":
                start = at + 1
                at = start + payload[at]
                if not payload[start:at].isascii():
                    return False
            elif kind == "table":
                start = at + 4
                at = start + int.from_bytes(payload[at:start])
                _check(payload, start, at, named=True, depth=1, left=MOST_FIELDS)
            elif kind == "timestamp":
                if int.from_bytes(payload[at : at + 8]) > _LATEST_MS:
                    return False
                at += 8
            else:
                at += 1
    except (IndexError, _Unsound):
        return False
    return at <= len(payload)


class _Unsound(ValueError):
    """A table cannot be decoded as it is."""


def _check(data: bytes, at: int, end: int, *, named: bool, depth: int, left: int) -> int:
    """Check a table, or an array if its fields are not ``named``. Return how many more fields are allowed.

    Raises:
        IndexError: it goes beyond the end.
        _Unsound: it is not decodable.
    """
    if end > len(data) or depth > DEPTH:
        raise _Unsound
    while at < end:
        left -= 1
        if named:
            start = at + 1
            at = start + data[at]
            if not data[start:at].isascii():
                raise _Unsound
        size = _SIZES[data[at]]
        start = at + 1
        if size >= 0:
            at = start + size
        elif size == _DATE:
            at = start + 8
            if int.from_bytes(data[start:at]) > _LATEST_MS:
                raise _Unsound
        elif size == _UNKNOWN:
            raise _Unsound
        else:
            inner = start + 4
            at = inner + int.from_bytes(data[start:inner])
            if size == _NESTED:
                left = _check(data, inner, at, named=data[start - 1] == _TABLE, depth=depth + 1, left=left)
    if at != end or left < 0:
        raise _Unsound
    return left


# Mending, of what was not meant for anybody's eyes.


def _header(payload: bytes) -> bytes:
    """Return a content header with its usable properties."""
    kept, at, parts = 0, _HEAD + 2, []
    flags = int.from_bytes(payload[_HEAD:at])
    for flag, kind in _PROPERTIES:
        if not flags & flag:
            continue
        end = at + _length(payload, at, kind)
        if end > len(payload):
            break
        value = _property(kind, payload[at:end])
        if value is not None:
            kept |= flag
            parts.append(value)
        at = end
    return payload[:_HEAD] + kept.to_bytes(2) + b"".join(parts)


def _length(data: bytes, at: int, kind: str) -> int:
    """Return the size in bytes of a value and its length field; one more than is left if it cannot be read."""
    match kind:
        case "shortstr":
            return 1 + data[at] if at < len(data) else 1
        case "table" | "longstr":
            return 4 + int.from_bytes(data[at : at + 4])
        case _:
            return _WIDTHS[kind]


def _property(kind: str, value: bytes) -> bytes | None:
    match kind:
        case "shortstr":
            return _text(value[1:])
        case "table":
            return _table(value)
        case "timestamp":
            return _moment(int.from_bytes(value))
        case _:
            return value


def _text(value: bytes) -> bytes:
    return short_string(value.decode("utf-8", "replace"))


def _moment(number: int) -> bytes | None:
    if number <= _LATEST_MS:
        return number.to_bytes(8)
    for unit in (1_000_000, 1_000_000_000):
        if _EARLIEST_S <= number // unit <= _LATEST_S:
            return (number // unit).to_bytes(8)
    return None


def _table(value: bytes) -> bytes:
    whole = _Fields(value, MOST_FIELDS)
    mended = whole.mended(4, len(value), named=True, depth=1)
    return mended if whole.left else _Fields(value, FIELDS).mended(4, len(value), named=True, depth=1)


class _Fields:
    """Repairs one table. Nested tables share its limit of fields."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data = data
        self.left = most
        """How many more fields are allowed."""

    def mended(self, at: int, end: int, *, named: bool, depth: int) -> bytes:
        """Return the table between ``at`` and ``end``, repaired, after its new length."""
        data, out = self._data, bytearray()
        while at < end and self.left:
            self.left -= 1
            name = b""
            if named:
                start, at = at + 1, at + 1 + data[at]
                name = _text(data[start:at])
            if at >= end or (size := _SIZES[data[at]]) == _UNKNOWN:
                break
            kind, start = data[at], at + 1
            if size in (_LONG, _NESTED):
                size = 4 + int.from_bytes(data[start : start + 4])
            elif size == _DATE:
                size = 8
            at = start + size
            if at > end:
                break
            value = data[start:at]
            if kind in (_TABLE, _ARRAY):
                if depth == DEPTH:
                    kind, value = _VOID, b""
                else:
                    value = self.mended(start + 4, at, named=kind == _TABLE, depth=depth + 1)
            elif kind == _TIMESTAMP and int.from_bytes(value) > _LATEST_MS:
                kind = _NUMBER
            out += name + bytes((kind,)) + value
        return struct.pack(">I", len(out)) + out


def _method(index: int, payload: bytes) -> bytes:
    """Return a method frame with decodable texts, such as a routing key or an error text that RabbitMQ has cut."""
    if (method := _METHODS.get(index)) is None:
        return payload
    at, bits, parts = 4, 0, [payload[:4]]
    for kind in map(method.amqp_type, method.attributes()):
        if kind == "bit":  # eight to a byte
            width, bits = int(bits == 0), (bits + 1) % 8
        else:
            width, bits = _length(payload, at, kind), 0
        value = payload[at : at + width]
        at += width
        parts.append(_text(value[1:]) if kind == "shortstr" else _table(value) if kind == "table" else value)
    return b"".join(parts)
