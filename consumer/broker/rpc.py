"""RPC over the broker: requests with a reply address, and their replies by correlation id."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

from consumer.broker.errors import BrokerError, PublishUnknown, ReplyLost
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from schemas.replies import REPLY_SUFFIX


class RpcClient:
    """Sends requests whose replies come to ``reply_to``, and matches them by correlation id."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.reply_to = ""
        """The address for replies."""
        self._waiting: dict[str, asyncio.Queue[Delivery | BrokerError]] = {}
        self._unconfirmed: set[str] = set()
        """The correlation ids of requests that were published without a confirmation."""

    def attach(self, reply_to: str) -> None:
        """Set the address for replies on a new link."""
        self.reply_to = reply_to

    def detach(self) -> None:
        """Fail every waiting request: the link is lost, and the replies with it."""
        for replies in self._waiting.values():
            replies.put_nowait(ReplyLost("the connection to the broker was lost before the reply came"))

    def refused(self, reason: str) -> None:
        """Fail every request that was published without a confirm, because the broker has refused one of them."""
        for waiting in self._unconfirmed:
            self._waiting[waiting].put_nowait(
                PublishUnknown(f"the broker closed the channel that the request was sent on: {reason}")
            )

    def receive(self, delivery: Delivery) -> bool:
        """Take a reply. Return whether a request waits for it."""
        replies = self._waiting.get(delivery.message.correlation_id or "")
        if replies is None:
            return False
        replies.put_nowait(delivery)
        return True

    async def ask(
        self,
        message: Message,
        exchange: str,
        routing_key: str,
        *,
        timeout: float,
        confirm: bool = True,
        interim: Callable[[Delivery], Awaitable[None]] | None = None,
    ) -> Delivery:
        """Send one request and wait for its reply.

        By default, the broker confirms the request. ``interim`` gets the messages before the reply, whose types do not
        end in ``.reply``.

        Raises:
            TimeoutError: no reply came within ``timeout`` seconds.
            BrokerError: the request or the reply was lost with the link.
        """
        request = self._request(message)
        replies = self._waiting[request.correlation_id or ""] = asyncio.Queue()
        if not confirm:
            self._unconfirmed.add(request.correlation_id or "")
        try:
            await self._publisher.publish(request, exchange, routing_key, confirm=confirm)
            async with asyncio.timeout(timeout):
                while True:
                    reply = _present(await replies.get())
                    if interim is None or (reply.type or "").endswith(REPLY_SUFFIX):
                        return reply
                    await interim(reply)
        finally:
            self._unconfirmed.discard(request.correlation_id or "")
            del self._waiting[request.correlation_id or ""]

    async def gather(
        self, message: Message, exchange: str, routing_key: str, *, timeout: float
    ) -> AsyncGenerator[Delivery, None]:
        """Send one request to many, and yield each reply until ``timeout`` seconds are over. Close it to stop earlier.

        Raises:
            BrokerError: the request or the replies were lost with the link.
        """
        request = self._request(message)
        replies = self._waiting[request.correlation_id or ""] = asyncio.Queue()
        until = asyncio.get_running_loop().time() + timeout
        try:
            await self._publisher.publish(request, exchange, routing_key, confirm=False)
            while True:
                try:
                    async with asyncio.timeout_at(until):
                        reply = _present(await replies.get())
                except TimeoutError:
                    return
                yield reply
        finally:
            del self._waiting[request.correlation_id or ""]

    def _request(self, message: Message) -> Message:
        return replace(message, reply_to=self.reply_to, correlation_id=secrets.token_hex(16))


def _present(delivery: Delivery | BrokerError) -> Delivery:
    if isinstance(delivery, BrokerError):
        raise delivery
    return delivery
