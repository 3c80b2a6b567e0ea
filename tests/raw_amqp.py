"""A publisher that sends whatever bytes as properties, which no client library does: AMQP 0-9-1 on a bare socket.

Text is given as bytes and sent as it is, a table as what ``table`` makes of names and values; see AMQP 0-9-1, section
4.2, for the types of values.
"""

import socket
import struct
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

TIMEOUT: Final = 10.0

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_END = b"\xce"
_CONFIRM_ACK = (60, 80)
_CLOSE = {(10, 50), (20, 40)}

PROPERTIES: Final = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id", "reply_to",
    "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)  # fmt: skip
"""In the order that they have on the wire; the first one has the highest bit of the flags."""


def short(value: bytes) -> bytes:
    """A short string: at most 255 bytes."""
    return bytes((len(value),)) + value


def long(value: bytes) -> bytes:
    """A long string, or what has its form."""
    return struct.pack(">I", len(value)) + value


def text(value: bytes) -> bytes:
    """A long string as the value of a field."""
    return b"S" + long(value)


def moment(number: int) -> bytes:
    """A timestamp of so many seconds, or of whatever the number counts."""
    return struct.pack(">Q", number)


def table(*fields: tuple[bytes, bytes]) -> bytes:
    """A table of names and values, each value behind its type."""
    return long(b"".join(short(name) + value for name, value in fields))


def nested(depth: int) -> bytes:
    """The value of a field: a table in a table, so often."""
    value = b"V"
    for _ in range(depth):
        value = b"F" + table((b"k", value))
    return value


class Refused(Exception):
    """The broker does not take such a message from anybody, and has closed the channel or the connection for it."""


class RawPublisher:
    """One connection and one channel with confirms; opened anew after the broker has closed it."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def publish(self, exchange: str, key: bytes, body: bytes, **properties: bytes) -> None:
        """Publish, with properties that are encoded already, and wait for the confirmation.

        Raises:
            Refused: the broker takes no such message.
        """
        flags = sum(1 << 15 - PROPERTIES.index(name) for name in properties)
        self.publish_encoded(
            exchange, key, body, struct.pack(">H", flags) + b"".join(properties.get(name, b"") for name in PROPERTIES)
        )

    def publish_encoded(self, exchange: str, key: bytes, body: bytes, properties: bytes) -> None:
        """Publish with these bytes where flags and properties belong, and wait for the confirmation.

        Raises:
            Refused: the broker takes no such message.
        """
        if self._socket is None:
            self._open()
        try:
            method = struct.pack(">HHH", 60, 40, 0) + short(exchange.encode()) + short(key) + b"\0"
            header = struct.pack(">HHQ", 60, 0, len(body)) + properties
            parts = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
            self._send(1, (_METHOD, method), (_HEADER, header), *((_BODY, part) for part in parts))
            answer = self._method()
        except (Refused, OSError) as error:
            self.close()
            raise Refused(str(error)) from error
        assert answer == _CONFIRM_ACK

    def _open(self) -> None:
        self._socket = socket.create_connection((self._url.hostname, self._url.port or 5672), timeout=TIMEOUT)
        self._socket.sendall(b"AMQP\0\0\x09\1")
        self._method()  # connection.start
        user, password = (unquote(one or "guest") for one in (self._url.username, self._url.password))
        self._call(0, 10, 11, table() + short(b"PLAIN") + long(f"\0{user}\0{password}".encode()) + short(b"en_US"))
        self._method()  # connection.tune
        self._call(0, 10, 31, struct.pack(">HIH", 2047, 131_072, 0))
        self._call(0, 10, 40, short(unquote(self._url.path[1:] or "/").encode()) + short(b"") + b"\0")
        self._method()  # connection.open-ok
        self._call(1, 20, 10, short(b""))
        self._method()  # channel.open-ok
        self._call(1, 85, 10, b"\0")
        self._method()  # confirm.select-ok

    def _send(self, channel: int, *frames: tuple[int, bytes]) -> None:
        """Send frames at once: in pieces, the second one would wait for the first to be acknowledged."""
        assert self._socket is not None
        self._socket.sendall(
            b"".join(struct.pack(">BHI", kind, channel, len(payload)) + payload + _END for kind, payload in frames)
        )

    def _call(self, channel: int, class_id: int, method_id: int, arguments: bytes) -> None:
        self._send(channel, (_METHOD, struct.pack(">HH", class_id, method_id) + arguments))

    def _read(self, count: int) -> bytes:
        assert self._socket is not None
        read = b""
        while len(read) < count:
            more = self._socket.recv(count - len(read))
            if not more:
                raise Refused("the broker has closed the connection")
            read += more
        return read

    def _method(self) -> tuple[int, int]:
        kind = _HEARTBEAT
        while kind == _HEARTBEAT:
            kind, _, size = struct.unpack(">BHI", self._read(7))
            payload = self._read(size + 1)
        class_id, method_id = struct.unpack(">HH", payload[:4])
        if (class_id, method_id) in _CLOSE:
            raise Refused(payload[7:-5].decode("utf-8", "replace"))
        return class_id, method_id
