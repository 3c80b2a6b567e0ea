"""Messages between a client and the simulated broker: read from what ours writes, and handed over as ours reads them.

The library builds and checks an object for each frame. Here that would cost more than all else that the broker does,
so these read and hold only what is used.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aiormq import spec
from pamqp import decode

if TYPE_CHECKING:
    from tests.simulation.broker.stored import Published

_PUBLISH = b"\0\x3c\0\x28\0\0"
_START, _END = 7, 1
"""Bytes of a frame before and behind its payload."""


class Properties:
    """Properties of a message (AMQP 0-9-1, section 4.2.6.1); the names are the library's."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    message_type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def changed(self, **more: Any) -> "Properties":
        """A copy with other values."""
        return Properties(**{**self.__dict__, **more})


def _text(wire: bytes, at: int) -> tuple[Any, int]:
    end = at + 1 + wire[at]
    return wire[at + 1 : end].decode(), end


def _octet(wire: bytes, at: int) -> tuple[Any, int]:
    return wire[at], at + 1


def _moment(wire: bytes, at: int) -> tuple[Any, int]:
    return _of_second(wire[at : at + 8]), at + 8


def _headers(wire: bytes, at: int) -> tuple[Any, int]:
    end = at + 4 + int.from_bytes(wire[at : at + 4])
    return dict(_of_table(wire[at:end])), end


@lru_cache(maxsize=1024)
def _of_second(wire: bytes) -> datetime:
    return datetime.fromtimestamp(int.from_bytes(wire), UTC)


@lru_cache(maxsize=1024)
def _of_table(wire: bytes) -> dict[str, Any]:
    return decode.field_table(wire)[1]


def _read_by(name: str) -> Callable[[bytes, int], tuple[Any, int]]:
    return {"table": _headers, "octet": _octet, "timestamp": _moment}.get(spec.Basic.Properties.amqp_type(name), _text)


_READERS = [(spec.Basic.Properties.flags[name], name, _read_by(name)) for name in spec.Basic.Properties.attributes()]


def properties_of(wire: bytes) -> Properties:
    """Properties as they come over the wire."""
    at = 2
    made = Properties()
    values = made.__dict__
    for name, read in _readers_of(wire[:2]):
        values[name], at = read(wire, at)
    return made


@lru_cache(maxsize=1024)
def _readers_of(flags: bytes) -> list[tuple[str, Callable[[bytes, int], tuple[Any, int]]]]:
    """The names and readers of the properties that are there."""
    there = int.from_bytes(flags)
    return [(name, read) for flag, name, read in _READERS if there & flag]


def publication(frames: bytes) -> tuple[str, str, bytes, bytes]:
    """Exchange, routing key, properties and body of the frames that publish one message."""
    assert frames[_START : _START + 6] == _PUBLISH
    exchange, at = _text(frames, _START + 6)
    key, at = _text(frames, at)
    at += 1 + _END  # the bits
    end = at + _START + int.from_bytes(frames[at + 3 : at + 7])
    properties = frames[at + _START + 12 : end]
    pieces = []
    at = end + _END
    while at < len(frames):
        end = at + _START + int.from_bytes(frames[at + 3 : at + 7])
        pieces.append(frames[at + _START : end])
        at = end + _END
    return exchange, key, properties, b"".join(pieces)


@lru_cache(maxsize=4096)
def check_address(exchange: str, key: str) -> None:
    """Refuse what the library refuses."""
    spec.Basic.Publish(exchange=exchange, routing_key=key)


class _Header:
    __slots__ = ("properties",)

    def __init__(self, properties: Properties) -> None:
        self.properties = properties


class Delivered:
    """What is used of the library's ``DeliveredMessage``."""

    __slots__ = ("body", "delivery_tag", "exchange", "header", "redelivered", "routing_key")

    def __init__(self, number: int, redelivered: bool, message: "Published", properties: Properties) -> None:
        self.delivery_tag = number
        self.redelivered = redelivered
        self.exchange = message.exchange
        self.routing_key = message.routing_key
        self.header = _Header(properties)
        self.body = message.body
