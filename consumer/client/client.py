"""The Python client for asyncio, used by telephony backends, agents and the command line.

::

    async with SessionClient("amqp://localhost") as client:
        await client.publish_call_event({"call_id": "c-1", "kind": "started"})
        answer = await client.call_tool("c-1", "add_todo", {"text": "call back"})
        print(answer.text)
        async for event in client.events("session.closed.*"):
            print(event.subject, event.data["reason"])
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, get_args

from pydantic import BaseModel

from consumer.broker.topology import Names
from consumer.client.amqp_connection import AmqpConnection
from consumer.client.arguments import (
    check_choices,
    check_name,
    check_prefix,
    check_seconds,
    check_text,
    check_texts,
    encoded,
    naming_arguments,
)
from consumer.client.requester import Requester
from consumer.client.server_methods import ServerMethods
from consumer.client.session_methods import SessionMethods
from consumer.client.tool_methods import ToolMethods
from schemas.base import Json
from schemas.calls import CallEvent
from schemas.errors import Disconnected, InvalidArgument, InvalidKey
from schemas.events import CloudEvent

if TYPE_CHECKING:
    from consumer.tokens import TokenKeys


TokenScope = Literal["mcp", "gateway"]


@naming_arguments
class SessionClient(SessionMethods, ToolMethods, ServerMethods):
    """A connection to the workers of one prefix, for asyncio; safe for any number of requests at once.

    ``async with`` connects and disconnects it. Such blocks may be nested, and entered by several tasks: leaving the
    last one disconnects. When the connection is lost, it reconnects; requests that were in flight raise
    ``Disconnected``. The client never repeats a request.

    Every error of RabbitMQ or of a worker is a ``SessionsError``: the class of a worker's error code, or a
    ``ClientError`` when no worker answered. Each method can raise ``InvalidArgument`` and ``NotConnectedHere``. Each
    request can also raise ``Disconnected``, ``NotRouted``, ``NotConfirmed``, ``NoReply``, ``RequestTooLarge`` and
    ``InvalidReply``; its method lists what else it raises.

    Args:
        url: the broker; ``amqps://`` is verified.
        prefix: the first word of every name on the broker; the same as the workers'.
        connect_timeout: how long (s) the first connection may take. A broker that accepts the connection and then does
            not answer has at least 5 s.
        token_keys: the keys of ``mint_token``, the same as the gateway's ``token_keys``; the first one signs.
        middleware: gets the requester over AMQP, and returns the one to use; for a process that owns calls itself.

    Raises:
        InvalidUrl: ``url`` is invalid.
        InvalidKey: one of ``token_keys`` is neither a secret of 32 bytes or more nor an Ed25519 key.
    """

    def __init__(
        self,
        url: str = "amqp://guest:guest@localhost:5672/",
        *,
        prefix: str = "mcp",
        connect_timeout: float = 10.0,
        token_keys: Sequence[str] = (),
        middleware: Callable[[Requester], Requester] | None = None,
    ) -> None:
        check_text("url", url, "is the environment variable set that it comes from?" if url is None else "")
        check_prefix(prefix)
        check_seconds("connect_timeout", connect_timeout)
        check_texts("token_keys", token_keys)
        self._minter = _minter(token_keys, prefix) if token_keys else None
        self._connection = AmqpConnection(url, prefix, connect_timeout)
        super().__init__(self._connection if middleware is None else middleware(self._connection))

    async def connect(self) -> None:
        """Connect to the broker, and stay connected until ``disconnect``; ``async with`` does both.

        Raises:
            CannotConnect: no broker answers within ``connect_timeout``; ``AccessRefused`` if it refuses the user.
        """
        await self._connection.open()

    async def disconnect(self) -> None:
        """Disconnect from the broker. Requests in flight raise ``Disconnected``."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        await self._connection.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connection.leave()

    @property
    def names(self) -> Names:
        """The names of exchanges and queues under the prefix."""
        return self._connection.names

    @property
    def connected(self) -> bool:
        """Whether the client is connected now. When the connection is lost, it reconnects."""
        return self._connection.connected

    async def count_dead_letters(self) -> int:
        """Count the dead letters. This does not change them.

        Raises:
            Disconnected: the client is not connected now.
            NotRouted: no worker has ever run under this prefix, so there is no dead-letter queue.
        """
        return await self._connection.count_dead_letters()

    def mint_token(
        self,
        call_id: str,
        services: Sequence[str] = (),
        *,
        scopes: Sequence[TokenScope] = ("mcp", "gateway"),
        lifetime: float = 14_400.0,
    ) -> str:
        """Make a token that lets its holder reach one call over HTTP. The client need not be connected.

        Args:
            call_id: the call's id, as its platform gave it.
            services: the services that the token allows; without any, all of the call's.
            scopes: what the token allows: MCP, and the gateway's REST API.
            lifetime: how long (s) it is valid, at most a week.

        Returns:
            The token, for ``Authorization: Bearer``.

        Raises:
            InvalidKey: the client was made without ``token_keys``, or the first of them can only verify.
        """
        check_text("call_id", call_id)
        check_texts("services", services)
        check_choices("scopes", scopes, get_args(TokenScope))
        check_seconds("lifetime", lifetime)
        if self._minter is None:
            raise InvalidKey("the client has no key to sign with: pass it the gateway's token_keys")
        try:
            return self._minter.mint(call_id, services, scopes=scopes, lifetime=lifetime)
        except ValueError as error:
            raise InvalidKey(str(error)) from None

    # Events.

    async def publish_call_event(
        self,
        event: CallEvent | Json | bytes,
        *,
        content_type: str = "application/json",
        exchange: str | None = None,
        routing_key: str = "",
    ) -> None:
        """Publish an event of a telephony platform. Returns when the broker has confirmed it.

        The client does not read the event. One that the workers cannot read becomes a dead letter, with the reason, and
        its publisher hears nothing of it: ``mcp-sessions dead-letters list`` shows it, and ``mcp-sessions calls send
        FILE --dry-run`` says beforehand what an event would be taken as.

        Args:
            event: an event of this project's own format, or an unchanged event of a platform.
            content_type: the content type of ``bytes``.
            exchange: a platform's own exchange. The default is the prefix's exchange for call events.
            routing_key: the routing key for the platform's exchange.

        Raises:
            Disconnected: the client is not connected; the event was not sent.
            NotRouted: no worker has ever run under this prefix; the event is in no queue.
            NotConfirmed: the broker may or may not have it. Publish it again: a repeated event changes nothing.
        """
        match event:
            case bytes():
                body = event
            case BaseModel():
                body = encoded(event.model_dump())
            case Mapping():
                body = encoded(dict(event))
            case _:
                raise InvalidArgument(f"event: must be a CallEvent, a dict or bytes, is of type {type(event).__name__}")
        check_name("content_type", content_type)
        check_name("routing_key", routing_key)
        if exchange is not None:
            check_name("exchange", exchange, least=1)
        await self._connection.publish(body, content_type, exchange, routing_key)

    def following(
        self, pattern: str = "#", *, on_connection: Callable[[bool], None] | None = None
    ) -> AbstractAsyncContextManager[asyncio.Queue[CloudEvent]]:
        """Follow the events whose routing key (``session.<what>.<service>``, ``worker.<what>``) matches, in a queue.

        The queue gets every event from the moment this is entered. Events are missed while the connection is lost. When
        the client disconnects, the queue's ``get`` raises ``Disconnected`` after the last event.

        Args:
            pattern: a topic pattern for the routing key.
            on_connection: called with ``False`` when the connection is lost, and with ``True`` when the queue gets
                events again. It must not raise.

        Raises:
            Disconnected: the client is not connected now.
            NotRouted: no worker has ever run under this prefix, so there is no exchange for events.
        """
        check_name("pattern", pattern)
        return self._connection.followers.following(pattern, on_connection)

    async def events(self, pattern: str = "#") -> AsyncIterator[CloudEvent]:
        """Iterate over events until the client disconnects; see ``following``."""
        async with self.following(pattern) as events:
            while True:
                try:
                    event = await events.get()
                except Disconnected:
                    return
                yield event


def _minter(keys: Sequence[str], prefix: str) -> "TokenKeys":
    from consumer.tokens import TokenKeys  # noqa: PLC0415 - it takes long to import, and few clients mint

    try:
        return TokenKeys(keys, prefix)
    except ValueError as error:
        raise InvalidKey(str(error)) from None
