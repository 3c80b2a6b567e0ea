"""The two sides of the conformance test: the same links, channels and publishers of ours on one broker or the other."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from consumer.broker.channel import Channel
from consumer.broker.errors import BrokerError, PublishUnknown
from consumer.broker.link import Link
from consumer.broker.message import Delivery, Message
from consumer.broker.publish_channels import PublishChannels
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Binding, Exchange, Queue

LIMIT = 2
OFTEN = 2000
"""More deliveries than a run has: what may come back any number of times."""
NEW = ("x-last-death-", "x-acquired-count")
"""Headers of newer versions that nobody of ours reads, and that are not simulated."""
LINKS = (0, 1)
BRIEF = 1
"""An expiration that stands for the time to live of the run."""


def _quorum(dead: str | None, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": LIMIT, "x-overflow": "reject-publish"}
    if dead is not None:
        made |= {"x-dead-letter-exchange": dead, "x-dead-letter-strategy": "at-least-once"}
    return made | more


def exchanges() -> dict[str, Exchange]:
    """Exchanges like ours, in small; three have an alternate one, two of them each other."""
    made = (
        Exchange("unowned", "fanout", ""),
        Exchange("orphans", "fanout", ""),
        Exchange("dead", "fanout", ""),
        Exchange("direct", "direct", "", {"alternate-exchange": "unowned"}),
        Exchange("topic", "topic", "", {"alternate-exchange": "headers"}),
        Exchange("fanout", "fanout", ""),
        Exchange("headers", "headers", "", {"alternate-exchange": "topic"}),
    )
    return {one.name: one for one in made}


def queues(ttl: int) -> dict[str, Queue]:
    """Queues like ours, in small; messages of two of them live for ``ttl`` milliseconds."""
    made = (
        Queue("dead", "", _quorum("dead", **{"x-delivery-limit": OFTEN})),
        Queue("unowned", "", _quorum("dead", **{"x-single-active-consumer": True})),
        Queue("orphans", "", _quorum("unowned", **{"x-message-ttl": ttl})),
        Queue("inbox", "", _quorum("orphans", **{"x-message-ttl": ttl})),
        Queue("plain", "", _quorum("dead")),
        Queue("lost", "", _quorum(None)),
        Queue("keyed", "", _quorum("direct", **{"x-dead-letter-routing-key": "a"})),
    )
    return {one.name: one for one in made}


BINDINGS = (*(Binding(name, name) for name in ("unowned", "orphans", "dead")), Binding("fanout", "lost"))
EXCLUSIVE = {f"own{link}": Queue(f"own{link}", "", exclusive=True) for link in LINKS}


@dataclass
class Taken:
    """A consumer of the test, and what it was given."""

    link: int
    channel: Channel
    queue: str
    no_ack: bool
    tag: str = ""
    cancelled: bool = False
    deliveries: list[Delivery] = field(default_factory=list)
    unsettled: list[Delivery] = field(default_factory=list)

    def take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if not self.no_ack:
            self.unsettled.append(delivery)


def _why(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(error, PublishUnknown):
        return type(error).__name__  # the link was lost, and either its task or its socket says so first
    return type(error).__name__ if cause is None else f"{type(error).__name__}: {type(cause).__name__}"


class Side:
    """Two links on one broker, and one that looks on; what is done and seen is told in words that can be compared.

    Names are short ones; on the broker they are under ``prefix``.
    """

    def __init__(self, open_link: Callable[[str], Link], prefix: str, ttl: int) -> None:
        self._open_link = open_link
        self._prefix = f"{prefix}."
        self._ttl = ttl
        self._queues = queues(ttl)
        self.links: list[Link | None] = [None for _ in LINKS]
        self.publishers = [Publisher() for _ in LINKS]
        self._publishing: list[PublishChannels | None] = [None for _ in LINKS]
        self.taken: dict[int, Taken] = {}
        self._looking: Link | None = None
        self._looks = AsyncExitStack()
        self._counting: dict[str, Channel] = {}
        self._later: list[asyncio.Task[str]] = []

    # Names.

    def _full(self, name: str) -> str:
        return self._prefix + name if name else ""

    def _short(self, value: Any) -> str:
        return str(value).replace(self._prefix, "")

    def _arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        named = ("x-dead-letter-exchange", "alternate-exchange")
        return {name: self._full(value) if name in named else value for name, value in given.items()}

    def _exchange(self, exchange: Exchange) -> Exchange:
        return replace(exchange, name=self._full(exchange.name), arguments=self._arguments(exchange.arguments))

    def _queue(self, queue: Queue) -> Queue:
        return replace(queue, name=self._full(queue.name), arguments=self._arguments(queue.arguments))

    def _binding(self, one: Binding) -> Binding:
        return replace(one, source=self._full(one.source), queue=self._full(one.queue))

    # Beginning and end.

    async def begin(self) -> None:
        await self.look()
        for number in LINKS:
            await self.open(number)
        assert self._looking is not None
        async with self._looking.asking() as channel:
            for exchange in exchanges().values():
                await channel.declare_exchange(self._exchange(exchange))
            for queue in self._queues.values():
                await channel.declare_queue(self._queue(queue))
            for binding in BINDINGS:
                await channel.bind(self._binding(binding))

    async def look(self) -> None:
        """Open the link that looks on."""
        if self._looking is not None:
            await self._looking.close()
            await self._looks.aclose()
            self._counting.clear()
        self._looking = self._open_link("conformance")
        await self._looking.open()

    async def end(self) -> None:
        for number in LINKS:
            if self.links[number] is not None:
                await self.close(number)
        for task in self._later:
            task.cancel()
        assert self._looking is not None
        async with self._looking.asking() as channel:
            for name in exchanges():
                await channel.delete_exchange(self._full(name))
            for name in self._queues:
                await channel.delete_queue(self._full(name))
        await self._looks.aclose()
        await self._looking.close()

    # Links.

    async def open(self, number: int) -> str:
        link = self._open_link(f"conformance {number}")
        await link.open()
        self.links[number] = link
        self._publishing[number] = channels = await link.publishing()
        self.publishers[number].attach(channels)
        return "open"

    async def close(self, number: int) -> str:
        """Close a link in good order, or what is left of one that is lost."""
        link, self.links[number] = self.links[number], None
        self.publishers[number].detach()
        assert link is not None
        await link.close()
        self.taken = {one: taken for one, taken in self.taken.items() if taken.link != number}
        return "closed"

    def lost(self) -> list[int]:
        """The links that are lost and not closed yet."""
        return [number for number in LINKS if (link := self.links[number]) is not None and link.lost.done()]

    # Names on the broker.

    async def _ask(self, link: Link | None, do: Callable[[Channel], Awaitable[Any]]) -> str:
        assert link is not None
        try:
            async with link.asking() as channel:
                told = await do(channel)
        except BrokerError as error:
            return _why(error)
        return "done" if told is None else str(told)

    async def declare_exchange(self, exchange: Exchange, passive: bool) -> str:
        named = self._exchange(exchange)
        return await self._ask(self._looking, lambda channel: channel.declare_exchange(named, passive=passive))

    async def delete_exchange(self, name: str) -> str:
        return await self._ask(self._looking, lambda channel: channel.delete_exchange(self._full(name)))

    async def declare_queue(self, number: int, name: str, more: dict[str, Any], passive: bool) -> str:
        """Declare a queue as it is, or with other arguments."""
        queue = (self._queues | EXCLUSIVE)[name]
        named = self._queue(replace(queue, arguments=queue.arguments | more))
        return await self._ask(self.links[number], lambda channel: channel.declare_queue(named, passive=passive))

    async def delete_queue(self, name: str) -> str:
        return await self._ask(self._looking, lambda channel: channel.delete_queue(self._full(name)))

    async def purge(self, number: int, name: str) -> str:
        return await self._ask(self.links[number], lambda channel: channel.purge_queue(self._full(name)))

    async def bind(self, number: int, binding: Binding, on: bool) -> str:
        named = self._binding(binding)
        return await self._ask(self.links[number], lambda channel: channel.bind(named) if on else channel.unbind(named))

    # Messages.

    async def publish(self, number: int, exchange: str, key: str, message: Message, how: str) -> str:
        """Publish ``how``: returned where nothing takes it ("mandatory"), not returned ("quiet"), or unconfirmed."""
        publisher = self.publishers[number]
        if message.expiration == BRIEF:
            message = replace(message, expiration=self._ttl)
        named = key if exchange else self._full(key)
        try:
            await publisher.publish(
                message, self._full(exchange), named, confirm=how != "unconfirmed", mandatory=how == "mandatory"
            )
            channels = self._publishing[number]
            if how == "unconfirmed" and channels is not None:
                unconfirmed = await channels.unconfirmed()
                await unconfirmed.basic_qos(prefetch_count=0)  # the broker has done what came before
        except BrokerError as error:
            return _why(error)
        except Exception as error:  # noqa: BLE001 - the library's word for a channel that was closed
            return type(error).__name__
        return "confirmed" if how != "unconfirmed" else "sent"

    async def publish_later(self, number: int, exchange: str, key: str, message: Message) -> str:
        """Publish without waiting for the confirmation."""
        self._later.append(asyncio.create_task(self.publish(number, exchange, key, message, "mandatory")))
        return "sent"

    async def answers(self) -> str:
        """What became of what was published without waiting."""
        later, self._later = self._later, []
        return ", ".join(await asyncio.gather(*later))

    async def consume(self, name: int, number: int, queue: str, prefetch: int, no_ack: bool, beside: int) -> str:
        """Begin to consume, on a channel of its own or on that of the consumer ``beside``."""
        link = self.links[number]
        assert link is not None
        shared = self.taken.get(beside)
        channel = shared.channel if shared is not None else await link.channel(prefetch=prefetch)
        taken = Taken(number, channel, queue, no_ack)
        self.taken[name] = taken
        try:
            taken.tag = await channel.consume(self._full(queue), taken.take, no_ack=no_ack)
        except BrokerError as error:
            del self.taken[name]
            return _why(error)
        return "consumes"

    async def cancel(self, name: int) -> str:
        taken = self.taken[name]
        await taken.channel.cancel(taken.tag)
        taken.cancelled = True
        return "cancelled"

    async def close_channel(self, name: int) -> str:
        channel = self.taken[name].channel
        self.taken = {one: taken for one, taken in self.taken.items() if taken.channel is not channel}
        await channel.close()
        return "closed"

    async def settle(self, name: int, which: int, how: bool | None) -> str:
        taken = self.taken[name]
        delivery = taken.unsettled.pop(which)
        match how:
            case None:
                await delivery.ack()
            case True:
                await delivery.requeue()
            case False:
                await delivery.reject()
        await taken.channel.proven()  # the broker has done what came before
        return delivery.message.body.decode()

    # What is seen.

    async def seen(self) -> dict[str, Any]:
        """Ready messages and consumers of every queue, what each consumer was given, and the links that are lost."""
        async with asyncio.timeout(20):
            told = dict(zip(self._queues, await asyncio.gather(*map(self._counts, self._queues)), strict=True))
            for number, name in enumerate(EXCLUSIVE):
                link = self.links[number]
                if link is not None and not link.lost.done():
                    told[name] = await self._ask(link, partial(Channel.counts, queue=self._full(name)))
        for number, taken in self.taken.items():
            told[f"consumer {number} of {taken.queue}"] = [self._described(one) for one in taken.deliveries]
        told["lost"] = self.lost()
        return told

    async def _counts(self, name: str) -> Any:
        """Ask on a channel for this queue alone, so that all are asked at once."""
        channel = self._counting.get(name)
        try:
            if channel is None or channel.is_closed:
                assert self._looking is not None
                channel = self._counting[name] = await self._looks.enter_async_context(self._looking.scratch())
            return await channel.counts(self._full(name))
        except BrokerError as error:
            return _why(error)

    def _described(self, delivery: Delivery) -> tuple[Any, ...]:
        """A delivery, as far as it is the same on every broker."""
        message = delivery.message
        headers = {name: value for name, value in message.headers.items() if not name.startswith(NEW)}
        deaths = tuple(
            {
                name: self._short(value)
                for name, value in death.items()
                if name in ("queue", "reason", "count", "exchange", "routing-keys", "original-expiration")
            }
            for death in headers.pop("x-death", ())
        )
        kept = {name: self._short(value) for name, value in sorted(headers.items())}
        at = self._short(delivery.exchange), self._short(delivery.routing_key)
        again = "again" if delivery.redelivered else "first"
        return message.body.decode(), again, at, kept, deaths, message.expiration
