"""What an attacker with the rights of a role can send."""

import asyncio
import json
from types import TracebackType
from typing import Any, Self

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import spec
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused

from schemas.replies import Reply, parse_reply

TIMEOUT = 20.0


class Attacker:
    """Somebody with a connection, who sends what AMQP can say."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AbstractConnection
        self._pika: AbstractChannel
        self._raw: aiormq.Channel
        self._answers: dict[str, asyncio.Future[DeliveredMessage]] = {}
        self._number = 0

    async def __aenter__(self) -> Self:
        self._connection = await aio_pika.connect(self._url)
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def _open(self) -> None:
        self._pika = self._connection.channel(publisher_confirms=True)
        await self._pika.initialize()
        raw = await self._pika.get_underlay_channel()
        assert isinstance(raw, aiormq.Channel)
        self._raw = raw
        await raw.basic_consume("amq.rabbitmq.reply-to", self._heard, no_ack=True)

    async def _heard(self, message: DeliveredMessage) -> None:
        waiting = self._answers.pop(message.header.properties.correlation_id or "", None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def send(self, exchange: str, key: str, kind: str | None, body: object = b"{}", **properties: Any) -> None:
        """Publish; returns when the broker has it."""
        await self._raw.basic_publish(
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            exchange=exchange,
            routing_key=key,
            properties=spec.Basic.Properties(message_type=kind, **properties),
        )

    async def is_refused(self, exchange: str, key: str, kind: str | None = None, **properties: Any) -> bool:
        """Whether RabbitMQ lets this user publish there."""
        try:
            await self.send(exchange, key, kind, **properties)
        except ChannelAccessRefused:
            await self._open()
            return True
        return False

    async def ask(self, exchange: str, key: str, kind: str | None, body: object = b"{}", **properties: Any) -> Reply:
        """Publish with a reply address, and wait for the answer."""
        self._number += 1
        correlation = f"a-{self._number}"
        waiting = self._answers[correlation] = asyncio.get_running_loop().create_future()
        where = {"reply_to": "amq.rabbitmq.reply-to", "correlation_id": correlation}
        await self.send(exchange, key, kind, body, **where, **properties)
        async with asyncio.timeout(TIMEOUT):
            return parse_reply((await waiting).body)
