"""Reads and writes the lines of Asterisk's manager interface: headers, with an empty line after each packet. Pure.

Libraries for it do too much: they reconnect by themselves, but the bridge must know of each gap.
"""

from collections.abc import Iterator, Mapping

from schemas.base import Json
from schemas.text import decoded

MAX_LINE = 64 << 10
MAX_HEADERS = 1_000
"""The most headers of a packet. A larger packet is dropped as a whole."""


class AmiLines:
    """Assembles packets from bytes; never fails. A header that occurs several times has a list."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._packet: Json = {}
        self._headers = 0
        self._too_large = False
        self.left_out = 0
        """How many packets were dropped because they were too large."""

    def feed(self, data: bytes) -> Iterator[Json]:
        """Take bytes, and return the packets that are complete now."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._grow(line)
            whole, self._line = bytes(self._line), bytearray()
            yield from self._take(whole.removesuffix(b"\r"))
        self._grow(rest)

    def _grow(self, part: bytes) -> None:
        if len(self._line) + len(part) > MAX_LINE:
            self._too_large = True
        self._line += part[: max(0, MAX_LINE - len(self._line))]

    def _take(self, line: bytes) -> Iterator[Json]:
        if line:
            self._add(line)
            return
        packet, too_large = self._packet, self._too_large
        self._packet, self._headers, self._too_large = {}, 0, False
        if too_large:
            self.left_out += 1
        elif packet:
            yield packet

    def _add(self, line: bytes) -> None:
        name, colon, value = decoded(line).partition(":")
        if not colon:
            return  # the greeting, or output of a command
        self._headers += 1
        if self._headers > MAX_HEADERS:
            self._too_large = True
            return
        given = value.strip()
        match self._packet.get(name):
            case None:
                self._packet[name] = given
            case list() as several:
                several.append(given)
            case one:
                self._packet[name] = [one, given]


def written(action: str, fields: Mapping[str, str]) -> bytes:
    """Encode an action for the manager interface.

    Raises:
        ValueError: a value has a line break, and would be more than one header.
    """
    lines = [f"{name}: {value}" for name, value in {"Action": action, **fields}.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("no value may have a line break")
    return "\r\n".join([*lines, "", ""]).encode()
