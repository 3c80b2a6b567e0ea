"""The ways of calls to the workers: over RabbitMQ, or over HTTP with signatures, as SignalWire does."""

import base64
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

import httpx2
from pydantic import SecretStr
from pydantic_core import from_json, to_json

from consumer.client import SessionClient
from consumer.demo.script import FORM, JSON
from consumer.demo.stage import Place
from consumer.demo.watch import DemoFailed, PlayedCall
from consumer.gateway.gateway import Gateway
from consumer.observability.reasons import reason_of
from consumer.settings import Settings, WorkerSettings
from consumer.settings.gateway_settings import GatewaySettings
from schemas.base import Json

EVENTS = "/signalwire/events"
SWAIG = "/signalwire/swaig"
FUNCTIONS = "/signalwire/swaig/todo"
ANSWER_TIMEOUT = 28.0
"""How long (s) an answer may take; SignalWire's agents wait about as long."""

LEAVING = 5.0


class Line(Protocol):
    """A way for the events and tool calls of a call."""

    async def tell(self, call: PlayedCall, event: str) -> None:
        """Report an event of the call; ``event`` names its sample."""

    async def use(self, call: PlayedCall, tool: str, arguments: Json) -> Json:
        """Call a tool of the call's todo list, and return its answer.

        Raises:
            DemoFailed: the answer is an error.
        """


class RabbitMQLine:
    """Events and tool calls as messages."""

    def __init__(self, client: SessionClient, place: Place) -> None:
        self._client = client
        self._place = place

    async def tell(self, call: PlayedCall, event: str) -> None:
        """Publish an event to the exchange of its platform."""
        part = call.part
        await self._client.publish_call_event(
            part.body(event, call.call_id),
            content_type=part.content_type,
            exchange=self._place.exchange(part.exchange.name) if part.exchange else None,
            routing_key=part.routing_key(call.call_id),
        )

    async def use(self, call: PlayedCall, tool: str, arguments: Json) -> Json:
        """Call a tool with the client."""
        result = await self._client.call_tool(call.call_id, tool, arguments)
        if result.is_error:
            raise DemoFailed(f"{tool} of the {call.part.platform} call answered: {result.text}")
        return result.structured_content or {}


class SignalWireLine:
    """Sends events as webhooks and tool calls as SWAIG functions, signed as SignalWire signs them."""

    def __init__(self, http: httpx2.AsyncClient, base: str, key: str) -> None:
        self.http = http
        self.base = base
        self._key = key

    async def tell(self, call: PlayedCall, event: str) -> None:
        """Send an event to the route that SignalWire uses for this kind."""
        part = call.part
        path, wanted = (SWAIG, 200) if part.source == "swaig" else (EVENTS, 204)
        answer = await self._post(path, part.body(event, call.call_id), part.content_type, self._key)
        if answer.status_code != wanted:
            raise DemoFailed(f"the webhook of the {part.platform} call was answered with {_told(answer)}")

    async def use(self, call: PlayedCall, tool: str, arguments: Json) -> Json:
        """Call a tool as the SWAIG function of its name."""
        body = to_json({"function": tool, "call_id": call.call_id, "argument": {"parsed": [arguments]}})
        answer = await self._post(FUNCTIONS, body, JSON, self._key)
        if answer.status_code == 200:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                found: Any = from_json(answer.json()["response"])
                if isinstance(found, dict):
                    return found
        raise DemoFailed(f"{tool} of the {call.part.platform} call was answered with {_told(answer)}")

    async def try_another_key(self) -> None:
        """Check that the gateway refuses a request with a wrong signature.

        Raises:
            DemoFailed: the request was accepted.
        """
        answer = await self._post(EVENTS, b'{"event_type": "calling.call.state"}', JSON, secrets.token_hex(16))
        if answer.status_code != 403:
            raise DemoFailed(f"a webhook with a wrong signature was answered with {_told(answer)}, not with 403")

    async def _post(self, path: str, body: bytes, content_type: str, key: str) -> httpx2.Response:
        url = self.base + path
        headers = {"content-type": content_type, **signature(key, url, body, content_type)}
        try:
            return await self.http.post(url, content=body, headers=headers)
        except httpx2.HTTPError as error:
            raise DemoFailed(f"the HTTP gateway did not answer: {reason_of(error)}") from error


@dataclass(frozen=True, slots=True)
class Lines:
    """The ways of all calls."""

    rabbitmq: RabbitMQLine
    signalwire: SignalWireLine

    def of(self, call: PlayedCall) -> Line:
        """Return the line of this call."""
        return self.signalwire if call.part.over_http else self.rabbitmq


def signature(key: str, url: str, body: bytes, content_type: str) -> dict[str, str]:
    """Return the headers with which SignalWire signs a request.

    JSON: the URL and the body, as HMAC-SHA256 in hex. Forms, of cXML: the URL and the sorted fields, as HMAC-SHA1 in
    base 64. Source: signalwire-sdk 3.7, ``core/security/webhook_validator.py``.
    """
    if content_type == FORM:
        fields = "".join(name + value for name, value in sorted(parse_qsl(body.decode(), keep_blank_values=True)))
        digest = hmac.digest(key.encode(), (url + fields).encode(), "sha1")
        return {"x-signalwire-signature": base64.b64encode(digest).decode()}
    return {"x-signalwire-sha256-signature": hmac.new(key.encode(), url.encode() + body, hashlib.sha256).hexdigest()}


@contextlib.asynccontextmanager
async def signalwire_line(place: Place) -> AsyncIterator[SignalWireLine]:
    """Start an HTTP gateway in this process, and return a line to it. It knows only this run's signing key."""
    key = secrets.token_hex(16)
    gateway = Gateway(
        Settings(
            amqp_url=place.url,
            worker=WorkerSettings(prefix=place.prefix),
            gateway=GatewaySettings(port=0, signing_keys=(SecretStr(key),)),
        )
    )
    try:
        await gateway.listen()
        await gateway.connect()
        async with httpx2.AsyncClient(timeout=ANSWER_TIMEOUT, trust_env=False) as http:
            yield SignalWireLine(http, f"http://127.0.0.1:{gateway.port}", key)
        await gateway.leave(LEAVING)
    finally:
        await gateway.close()


def _told(answer: httpx2.Response) -> str:
    return f"{answer.status_code} {answer.text[:300]}".strip()
