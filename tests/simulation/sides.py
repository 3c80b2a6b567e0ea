"""The two sides of the conformance test: the same links, channels and publishers of ours on one broker or the other."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from consumer.broker.channel import Channel
from consumer.broker.errors import BrokerError
from consumer.broker.link import Link
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Binding, Exchange, Queue

TTL_MS = 150
LIMIT = 2


def _quorum(dead: str | None, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": LIMIT, "x-overflow": "reject-publish"}
    if dead is not None:
        made |= {"x-dead-letter-exchange": dead, "x-dead-letter-strategy": "at-least-once"}
    return made | more


class Names:
    """A topology like ours, in small, under a prefix."""

    def __init__(self, prefix: str) -> None:
        self.direct, self.topic, self.fanout, self.headers, self.unowned, self.orphans, self.dead = (
            f"{prefix}.{word}" for word in ("direct", "topic", "fanout", "headers", "unowned", "orphans", "dead")
        )
        self.plain, self.inbox = f"{prefix}.plain", f"{prefix}.inbox"
        self.exchanges = (
            Exchange(self.unowned, "fanout", ""),
            Exchange(self.orphans, "fanout", ""),
            Exchange(self.dead, "fanout", ""),
            Exchange(self.direct, "direct", "", {"alternate-exchange": self.unowned}),
            Exchange(self.topic, "topic", ""),
            Exchange(self.fanout, "fanout", ""),
            Exchange(self.headers, "headers", ""),
        )
        self.queues = (
            Queue(self.dead, "", _quorum(None)),
            Queue(self.unowned, "", _quorum(self.dead, **{"x-single-active-consumer": True})),
            Queue(self.orphans, "", _quorum(self.unowned, **{"x-message-ttl": TTL_MS})),
            Queue(self.inbox, "", _quorum(self.orphans, **{"x-message-ttl": TTL_MS})),
            Queue(self.plain, "", _quorum(self.dead)),
        )
        self.bindings = tuple(Binding(name, name) for name in (self.unowned, self.orphans, self.dead))


@dataclass
class Taken:
    """A consumer of the test, and what it was given."""

    link: int
    channel: Channel
    queue: str
    tag: str = ""
    deliveries: list[Delivery] = field(default_factory=list)
    unsettled: list[Delivery] = field(default_factory=list)

    def take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.unsettled.append(delivery)


class Side:
    """Two links on one broker; everything that is done is told in words that can be compared."""

    def __init__(self, open_link: Callable[[str], Link], names: Names) -> None:
        self._open_link = open_link
        self.names = names
        self.links: list[Link | None] = [None, None]
        self.publishers = [Publisher(), Publisher()]
        self.taken: dict[int, Taken] = {}
        self._scratch: Channel | None = None
        self.delivered = 0

    async def begin(self) -> None:
        for number in (0, 1):
            await self.open(number)
        link = self.links[0]
        assert link is not None
        async with link.scratch() as channel:
            for exchange in self.names.exchanges:
                await channel.declare_exchange(exchange)
            for queue in self.names.queues:
                await channel.declare_queue(queue)
            for binding in self.names.bindings:
                await channel.bind(binding)

    async def end(self) -> None:
        for number, one in enumerate(self.links):  # a queue that goes costs whoever consumes from it the link
            if one is not None:
                await self.close(number)
        await self.open(0)
        link = self.links[0]
        assert link is not None
        async with link.scratch() as channel:
            for exchange in self.names.exchanges:
                await channel.delete_exchange(exchange.name)
            for queue in self.names.queues:
                await channel.delete_queue(queue.name)
        for one in self.links:
            if one is not None:
                await one.close()

    async def open(self, number: int) -> None:
        link = self._open_link(f"conformance {number}")
        await link.open()
        self.publishers[number].attach(await link.publishing())
        self.links[number] = link

    async def close(self, number: int) -> None:
        link, self.links[number] = self.links[number], None
        self.publishers[number].detach()
        assert link is not None
        await link.close()
        self.taken = {one: taken for one, taken in self.taken.items() if taken.link != number}

    async def publish(
        self, number: int, exchange: str, key: str, body: bytes, headers: dict, patience: int | None
    ) -> str:
        message = Message(body=body, type="t", headers=headers, expiration=patience)
        try:
            await self.publishers[number].publish(message, exchange, key)
        except BrokerError as error:
            return type(error).__name__
        return "confirmed"

    async def bind(self, binding: Binding, *, on: bool) -> str:
        link = next(one for one in self.links if one is not None)
        async with link.scratch() as channel:
            await (channel.bind(binding) if on else channel.unbind(binding))
        return "done"

    async def consume(self, name: int, number: int, queue: str, prefetch: int) -> str:
        link = self.links[number]
        assert link is not None
        channel = await link.channel(prefetch=prefetch)
        taken = self.taken[name] = Taken(number, channel, queue)

        def take(delivery: Delivery) -> None:
            self.delivered += 1
            taken.take(delivery)

        taken.tag = await channel.consume(queue, take)
        return "consumes"

    async def cancel(self, name: int) -> None:
        await self.taken[name].channel.cancel(self.taken[name].tag)

    async def close_channel(self, name: int) -> None:
        taken = self.taken.pop(name)
        await taken.channel.close()

    async def settle(self, name: int, which: int, how: bool | None) -> str:
        delivery = self.taken[name].unsettled.pop(which)
        match how:
            case None:
                await delivery.ack()
            case True:
                await delivery.requeue()
            case False:
                await delivery.reject()
        return delivery.message.body.decode()

    async def counts(self, queue: str) -> tuple[int, int]:
        link = next(one for one in self.links if one is not None)
        async with link.scratch() as channel:
            return await channel.counts(queue)

    async def passive(self, queue: str) -> str:
        """What the broker says of a queue, or why it says nothing."""
        link = next(one for one in self.links if one is not None)
        with suppress(BrokerError):
            async with link.scratch() as channel:
                await channel.declare_queue(Queue(queue, ""), passive=True)
                return "there"
        return "not there"

    def told(self) -> dict[int, list[tuple[Any, ...]]]:
        """What each consumer was given."""
        return {name: [described(one) for one in taken.deliveries] for name, taken in self.taken.items()}


def described(delivery: Delivery) -> tuple[Any, ...]:
    """A delivery, as far as it is the same on every broker."""
    headers = dict(delivery.message.headers)
    deaths = headers.pop("x-death", [])
    told = tuple(
        tuple((name, str(death[name])) for name in ("queue", "reason", "count", "exchange", "routing-keys"))
        for death in deaths
    )
    kept = tuple(sorted((name, str(value)) for name, value in headers.items()))
    message = delivery.message
    return message.body, delivery.redelivered, delivery.exchange, delivery.routing_key, kept, told, message.expiration


async def quiet(*sides: Side, bound: float = 20.0) -> bool:
    """Wait until both sides tell the same; returns whether they do."""
    loop = asyncio.get_running_loop()
    until = loop.time() + bound
    one, other = sides
    await asyncio.sleep(0.03)  # nothing tells that a broker has nothing more to deliver
    while one.told() != other.told():
        if loop.time() > until:
            return False
        await asyncio.sleep(0.005)
    return True
