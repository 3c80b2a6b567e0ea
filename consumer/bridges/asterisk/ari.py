"""ARI: events over a WebSocket, and the list of channels over HTTP.

Sources: asterisk/asterisk ``rest-api/api-docs`` (events, channels, applications); docs.asterisk.org, Asterisk REST
Interface.
"""

import base64
import json
import ssl
from collections.abc import AsyncIterator
from datetime import datetime
from urllib.parse import quote, urlencode

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

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
from schemas.text import decoded

MAX_EVENT = 4 << 20
CLOSE_TIMEOUT = 2.0


class Ari:
    """A WebSocket of ARI, with HTTP requests beside it; see ``Pbx``."""

    def __init__(self, settings: AsteriskSettings) -> None:
        self._settings = settings
        self._app = settings.app
        self.knows_starts = settings.subscribe_all
        self._root = f"{settings.url.rstrip('/')}/ari"
        self._tls: ssl.SSLContext | None = context_of(settings) if self._root.startswith("https:") else None
        self._socket: ClientConnection | None = None
        self._http: httpx2.AsyncClient | None = None

    async def open(self) -> None:
        """Open the WebSocket, which registers the application."""
        asked = {"app": self._app, "subscribeAll": "true" if self._settings.subscribe_all else "false"}
        address = f"{self._root.replace('http', 'ws', 1)}/events?{urlencode(asked)}"
        user, secret = self._settings.credentials
        basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
        try:
            self._socket = await connect(
                address,
                additional_headers={"Authorization": f"Basic {basic}"},
                ssl=self._tls,
                proxy=None,
                open_timeout=OPEN_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                ping_interval=None,  # the bridge pings itself, and remembers when it was answered
                max_size=MAX_EVENT,
            )
        except InvalidStatus as error:
            raise _refusal(error.response.status_code, user) from error
        except TimeoutError:
            raise PbxUnreachable(f"no answer within {OPEN_TIMEOUT:g} s") from None
        except (OSError, WebSocketException) as error:
            raise PbxUnreachable(reason_of(error)) from error
        self._http = httpx2.AsyncClient(
            auth=(user, secret), verify=self._tls or True, timeout=ASK_TIMEOUT, trust_env=False
        )

    async def events(self) -> AsyncIterator[Heard]:
        """Iterate over every event of the WebSocket."""
        if self._socket is None:
            raise PbxLost("there is no connection to the PBX")
        while True:
            try:
                body = await self._socket.recv(decode=False)
            except ConnectionClosed as error:
                raise PbxLost(f"the WebSocket was closed: {error}") from error
            payload = _read(body)
            if payload.get("type") == "ApplicationReplaced":
                raise PbxRefused(
                    f"another program has connected to the PBX as the application {self._app!r}: give each a name of "
                    "its own (asterisk.app)"
                )
            yield Heard(body, payload)

    async def living(self) -> list[Json]:
        """Return the live channels, as ``GET /channels`` lists them."""
        try:
            listed = (await self._ask("GET", "/channels")).json()
        except httpx2.HTTPStatusError as error:
            raise CannotTell(f"the PBX answered GET /channels with {error.response.status_code}") from error
        except (httpx2.HTTPError, ValueError) as error:
            raise CannotTell(f"GET /channels failed: {reason_of(error)}") from error
        channels = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        return [self._event("ChannelCreated", one, one.get("creationtime")) for one in channels]

    async def follow(self, start: Json) -> bool:
        """Subscribe to the channel, unless the application gets all events: the channel may leave it before its end."""
        if self._settings.subscribe_all:
            return True
        channel = start.get("channel")
        source = f"channel:{channel.get('id') if isinstance(channel, dict) else ''}"
        path = f"/applications/{quote(self._app, safe='')}/subscription"
        try:
            await self._ask("POST", path, eventSource=source)
        except httpx2.HTTPError:
            return False
        return True

    async def _ask(self, method: str, path: str, **parameters: str) -> httpx2.Response:
        if self._http is None:
            raise httpx2.NetworkError("there is no connection to the PBX")
        answer = await self._http.request(method, f"{self._root}{path}", params=parameters)
        return answer.raise_for_status()

    async def ping(self) -> None:
        """Ping the WebSocket, and return when the PBX has answered."""
        if self._socket is None:
            raise PbxLost("there is no connection to the PBX")
        try:
            await (await self._socket.ping())
        except ConnectionClosed as error:
            raise PbxLost(f"the WebSocket was closed: {error}") from error

    async def close(self) -> None:
        """Hang up."""
        socket, self._socket = self._socket, None
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()
        if socket is not None:
            await socket.close()

    def changed(self, start: Json, at: datetime) -> Json:
        """Return the state as a ``ChannelStateChange`` event."""
        return self._event("ChannelStateChange", start.get("channel"), at.isoformat())

    def ended(self, last: Json, at: datetime) -> Json:
        """Return the end as a ``ChannelDestroyed`` event without a cause."""
        return {**self._event("ChannelDestroyed", last.get("channel"), at.isoformat()), "cause_txt": MISSED}

    def _event(self, name: str, channel: object, at: object) -> Json:
        return {"type": name, "timestamp": at, "channel": channel, "application": self._app}


def _read(body: bytes) -> Json:
    try:
        found = json.loads(decoded(body))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(status: int, user: str) -> Exception:
    match status:
        case 401 | 403:
            return PbxRefused(
                f"ARI refuses the user {user!r} ({status}): check its name and password in ari.conf; a user "
                "must have a password"
            )
        case 404:
            return PbxUnreachable(
                "there is no ARI at this address (404): is res_ari loaded, and does http.conf set a prefix?"
            )
        case _:
            return PbxUnreachable(f"ARI answered with the HTTP status {status}")
