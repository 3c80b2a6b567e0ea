"""A stand-in for Asterisk: real sockets that speak ARI or AMI with the events of the samples, and no telephony."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from consumer.observability.http_connections import SignalFreeServer
from consumer.observability.listening import listen
from tests.telephony.shapes import sample

USER, PASSWORD = "bridge", "s3cret of the PBX"
BUSY, NORMAL = 17, 16


class StandIn(Protocol):
    """A PBX whose calls a test makes."""

    url: str

    async def begin(self, channel: str, *, to: str = "2001", parent: str | None = None) -> None: ...

    async def answer(self, channel: str) -> None: ...

    async def hang_up(self, channel: str, cause: int = NORMAL) -> None: ...

    async def noise(self) -> None:
        """An event that does not concern the life of a call."""

    async def go(self) -> None:
        """Cut every connection and take none."""

    async def come(self) -> None:
        """Take connections again, as if nothing had been."""

    async def connected(self) -> None:
        """Wait until somebody has logged in and hears events."""


class _Base:
    def __init__(self) -> None:
        self.living: dict[str, dict[str, Any]] = {}
        self.away = False
        self.logins = 0
        self.refuse_lists = False
        self._heard = asyncio.Event()

    async def connected(self) -> None:
        async with asyncio.timeout(45):
            await self._heard.wait()


class Ari(_Base):
    """ARI's WebSocket and the little of its REST that the bridge asks for."""

    def __init__(self) -> None:
        super().__init__()
        self._sockets: dict[WebSocket, bool] = {}
        """Who hears, and whether of every channel."""
        self.subscribed: set[str] = set()
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Ari"]:
        routes = [
            WebSocketRoute("/ari/events", self._events),
            Route("/ari/channels", self._channels),
            Route("/ari/applications/{app}/subscription", self._subscribe, methods=["POST"]),
        ]
        server = SignalFreeServer(
            uvicorn.Config(
                Starlette(routes=routes), ws="websockets-sansio", lifespan="off", log_config=None, log_level="error",
                timeout_graceful_shutdown=1,
            )
        )  # fmt: skip
        socket = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        serving = asyncio.create_task(server.serve(sockets=[socket]), name="stand-in")
        try:
            yield self
        finally:
            await self.go()
            server.should_exit = True
            await serving

    def _lets_in(self, headers: Any) -> bool:
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return bool(headers.get("authorization") == f"Basic {basic}")

    async def _events(self, socket: WebSocket) -> None:
        if self.away or not self._lets_in(socket.headers):
            await socket.send_denial_response(Response(status_code=503 if self.away else 401))
            return
        await socket.accept()
        self.logins += 1
        for other in list(self._sockets):
            await other.send_json({"type": "ApplicationReplaced", "application": socket.query_params["app"]})
            await other.close()
        self._sockets = {socket: socket.query_params.get("subscribeAll") == "true"}
        self._heard.set()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await socket.receive_text()
        self._sockets.pop(socket, None)

    async def _channels(self, request: Request) -> Response:
        if self.away or self.refuse_lists or not self._lets_in(request.headers):
            return Response(status_code=503 if self.away else 403)
        return JSONResponse(list(self.living.values()))

    async def _subscribe(self, request: Request) -> Response:
        if not self._lets_in(request.headers):
            return Response(status_code=403)
        self.subscribed.add(request.query_params["eventSource"].removeprefix("channel:"))
        return JSONResponse({"name": request.path_params["app"]})

    async def _tell(self, file: str, channel: dict[str, Any], **more: Any) -> None:
        event = {**sample(f"asterisk_ari/{file}.json"), "channel": channel, **more}
        for socket, everything in list(self._sockets.items()):
            if everything or file == "stasis_start_ring" or channel["id"] in self.subscribed:
                await socket.send_text(json.dumps(event))

    async def begin(self, channel: str, *, to: str = "2001", parent: str | None = None, stasis: bool = False) -> None:
        made = sample("asterisk_ari/channel_created.json")["channel"]
        made |= {"id": channel, "state": "Ring", "dialplan": {**made["dialplan"], "exten": to}}
        self.living[channel] = made
        await self._tell("channel_created", made)
        if stasis:
            await self._tell("stasis_start_ring", made)

    async def answer(self, channel: str) -> None:
        self.living[channel]["state"] = "Up"
        await self._tell("state_change_up", self.living[channel])

    async def hang_up(self, channel: str, cause: int = NORMAL) -> None:
        await self._tell("channel_destroyed", self.living.pop(channel), cause=cause)

    async def noise(self) -> None:
        for socket in self._sockets:
            await socket.send_text(json.dumps(sample("asterisk_ari/varset_global.json")))

    async def go(self) -> None:
        self.away = True
        self._heard.clear()
        sockets, self._sockets = self._sockets, {}
        for socket in sockets:
            with contextlib.suppress(RuntimeError):
                await socket.close(1011)

    async def come(self) -> None:
        self.away = False


class Ami(_Base):
    """The manager interface: login, pings, events, and the list of channels."""

    def __init__(self) -> None:
        super().__init__()
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Ami"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            async with server:
                yield self
        finally:
            await self.go()
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.away:
                return
            writer.write(b"Asterisk Call Manager/9.0.0\r\n")
            while data := await reader.readuntil(b"\r\n\r\n"):
                said = dict(line.split(": ", 1) for line in data.decode().strip().split("\r\n"))
                if not self._answer(said, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, said: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        number = said.get("ActionID", "")
        match said["Action"]:
            case "Login" if (said["Username"], said["Secret"]) == (USER, PASSWORD):
                _write(writer, Response="Success", ActionID=number, Message="Authentication accepted")
                _write(writer, Event="FullyBooted", Privilege="system,all", Status="Fully Booted")
                self.logins += 1
                self._writers.add(writer)
                self._heard.set()
            case "Login":
                _write(writer, Response="Error", ActionID=number, Message="Authentication failed")
                return False
            case "Ping":
                _write(writer, Response="Success", ActionID=number, Ping="Pong", Timestamp="1772450100.5")
            case "CoreShowChannels" if self.refuse_lists:
                _write(writer, Response="Error", ActionID=number, Message="Permission denied")
            case "CoreShowChannels":
                _write(writer, Response="Success", ActionID=number, EventList="start", Message="Channels will follow")
                for channel in self.living.values():
                    listed = {key: value for key, value in channel.items() if key not in ("Event", "Privilege")}
                    _write(writer, Event="CoreShowChannel", ActionID=number, **listed, Application="Dial",
                           ApplicationData="PJSIP/2001", Duration="00:00:07", BridgeId="")  # fmt: skip
                _write(writer, Event="CoreShowChannelsComplete", ActionID=number, EventList="Complete",
                       ListItems=str(len(self.living)))  # fmt: skip
            case _:
                return False
        return True

    def _tell(self, event: dict[str, Any]) -> None:
        for writer in self._writers:
            _write(writer, **event)

    async def begin(self, channel: str, *, to: str = "2001", parent: str | None = None) -> None:
        made = {
            **sample("asterisk_ami/newchannel.json"), "Uniqueid": channel, "Linkedid": parent or channel, "Exten": to,
        }  # fmt: skip
        self.living[channel] = made
        self._tell(made)

    async def answer(self, channel: str) -> None:
        self.living[channel] |= {"ChannelState": "6", "ChannelStateDesc": "Up"}
        self._tell({**self.living[channel], "Event": "Newstate"})

    async def hang_up(self, channel: str, cause: int = NORMAL) -> None:
        ended = {**self.living.pop(channel), "Event": "Hangup", "Cause": str(cause), "Cause-txt": "Normal Clearing"}
        self._tell(ended)

    async def noise(self) -> None:
        self._tell(sample("asterisk_ami/peer_status.json"))

    async def go(self) -> None:
        self.away = True
        self._heard.clear()
        for writer in list(self._writers):
            writer.transport.abort()

    async def come(self) -> None:
        self.away = False


def _write(writer: asyncio.StreamWriter, **fields: Any) -> None:
    text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"{text}\r\n".encode())
