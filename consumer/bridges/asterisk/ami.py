"""The manager interface (AMI) over TCP: logs in, receives events of the class ``call``, lists the channels.

Sources: docs.asterisk.org, Asterisk Manager Interface, the actions Login, Ping and CoreShowChannels.
"""

import asyncio
import contextlib
import itertools
import json
import ssl
from collections.abc import AsyncIterator
from datetime import datetime
from urllib.parse import urlsplit

from consumer.bridges.asterisk.ami_lines import AmiLines, written
from consumer.bridges.asterisk.pbx import (
    ASK_TIMEOUT,
    MISSED,
    OPEN_TIMEOUT,
    CannotTell,
    Heard,
    PbxLost,
    PbxRefused,
    PbxUnreachable,
)
from consumer.bridges.asterisk.tls import context_of
from consumer.observability.reasons import reason_of
from consumer.settings import AsteriskSettings
from schemas.base import Json

GREETING = b"Asterisk Call Manager"
CHUNK = 64 << 10
CLOSE_TIMEOUT = 2.0
_OF_THE_ANSWER = (
    "ActionID",
    "Event",
    "Response",
    "Timestamp",
    "Application",
    "ApplicationData",
    "Duration",
    "BridgeId",
)
_NOT_OF_AN_END = ("Timestamp", "Cause", "Cause-txt")


class _Answer:
    """The packets that answer one action: a response, and for a list its events up to the last one."""

    def __init__(self, *, is_list: bool) -> None:
        self._is_list = is_list
        self.listed: list[Json] = []
        self.complete: asyncio.Future[Json] = asyncio.get_running_loop().create_future()

    def take(self, packet: Json) -> None:
        event = packet.get("Event")
        if event is None:
            last = not self._is_list or not _succeeded(packet)
        elif not (last := str(event).endswith("Complete")):
            self.listed.append(packet)
        if last and not self.complete.done():
            self.complete.set_result(packet)


def _succeeded(response: Json) -> bool:
    return str(response.get("Response", "")).casefold() == "success"


class Ami:
    """A connection to the manager interface; see ``Pbx``."""

    knows_starts = True

    def __init__(self, settings: AsteriskSettings) -> None:
        self._settings = settings
        address = urlsplit(settings.url)
        self._host, self._port = address.hostname or "", address.port or (5039 if address.scheme == "tls" else 5038)
        self._tls: ssl.SSLContext | None = context_of(settings) if address.scheme == "tls" else None
        self._lines = AmiLines()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[str, _Answer] = {}
        self._early: list[Json] = []
        """Packets that came together with the answer to the login."""

    async def open(self) -> None:
        """Connect and log in."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                self._streams = reader, _ = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
                greeting = await reader.readline()
                if not greeting.startswith(GREETING):
                    raise PbxUnreachable("the server at this address is not Asterisk's manager interface")
                await self._log_in(reader)
        except TimeoutError:
            raise PbxUnreachable(f"no answer within {OPEN_TIMEOUT:g} s") from None
        except (OSError, ValueError) as error:  # a line without an end is a ValueError of asyncio
            raise PbxUnreachable(reason_of(error)) from error

    async def _log_in(self, reader: asyncio.StreamReader) -> None:
        user, secret = self._settings.credentials
        answer = self._send("Login", Username=user, Secret=secret, Events="call")
        while not answer.complete.done():
            data = await reader.read(CHUNK)
            if not data and not answer.complete.done():
                raise PbxUnreachable("it closed the connection during the login")
            self._early += [packet for packet in self._lines.feed(data) if not self._answered(packet)]
        told = answer.complete.result()
        if not _succeeded(told):
            raise PbxRefused(
                f"the manager interface refuses the user {user!r}: {told.get('Message', 'no reason given')}; name, "
                "secret and permit are in manager.conf"
            )

    def _send(self, action: str, *, is_list: bool = False, **fields: str) -> _Answer:
        if self._streams is None:
            raise PbxLost("there is no connection to the PBX")
        number = f"mcp-sessions-{next(self._numbers)}"
        answer = self._asked[number] = _Answer(is_list=is_list)
        self._streams[1].write(written(action, {"ActionID": number, **fields}))
        return answer

    def _answered(self, packet: Json) -> bool:
        """Return whether a packet answers an action of ours."""
        number = str(packet.get("ActionID", ""))
        answer = self._asked.get(number)
        if answer is None:
            return number.startswith("mcp-sessions-")
        answer.take(packet)
        if answer.complete.done():
            del self._asked[number]
        return True

    async def events(self) -> AsyncIterator[Heard]:
        """Yield every event; responses go to their requests."""
        if self._streams is None:
            raise PbxLost("there is no connection to the PBX")
        packets, self._early = self._early, []
        while True:
            for packet in packets:
                if "Event" in packet:
                    yield Heard(json.dumps(packet).encode(), packet)
            try:
                data = await self._streams[0].read(CHUNK)
            except OSError as error:
                raise PbxLost(reason_of(error)) from error
            if not data:
                raise PbxLost("the PBX closed the connection")
            packets = [packet for packet in self._lines.feed(data) if not self._answered(packet)]

    async def _ask(self, action: str, *, is_list: bool = False) -> tuple[Json, list[Json]]:
        answer = self._send(action, is_list=is_list)
        async with asyncio.timeout(ASK_TIMEOUT):
            return await answer.complete, answer.listed

    async def living(self) -> list[Json]:
        """Return the live channels, as ``CoreShowChannels`` lists them."""
        try:
            told, listed = await self._ask("CoreShowChannels", is_list=True)
        except TimeoutError:
            raise CannotTell(f"no answer to CoreShowChannels within {ASK_TIMEOUT:g} s") from None
        if "Event" not in told:
            raise CannotTell(
                f"CoreShowChannels is refused: {told.get('Message', 'no reason given')}; it needs write = reporting "
                "in manager.conf"
            )
        return [
            {"Event": "Newchannel", **{name: value for name, value in one.items() if name not in _OF_THE_ANSWER}}
            for one in listed
        ]

    async def follow(self, start: Json) -> bool:
        """Return True: the manager interface reports the end of every channel."""
        del start
        return True

    async def ping(self) -> None:
        """Send a ping, and return when the PBX has answered."""
        await self._ask("Ping")

    async def close(self) -> None:
        """Hang up."""
        streams, self._streams = self._streams, None
        if streams is None:
            return
        _, writer = streams
        with contextlib.suppress(Exception):
            writer.write(written("Logoff", {}))
        writer.close()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await writer.wait_closed()

    def changed(self, start: Json, at: datetime) -> Json:
        """Return the state as a ``Newstate`` event, without a time: the manager interface has none."""
        del at
        return {**start, "Event": "Newstate"}

    def ended(self, last: Json, at: datetime) -> Json:
        """Return the end as a ``Hangup`` event without a cause."""
        del at
        kept = {name: value for name, value in last.items() if name not in _NOT_OF_AN_END}
        return {**kept, "Event": "Hangup", "Cause-txt": MISSED}
