"""The consumers of the queues that all workers share: unowned calls, raw events, and requests to the cluster."""

from contextlib import suppress

from consumer.broker.channel import Channel
from consumer.broker.errors import BrokerError
from consumer.broker.link import Link
from consumer.broker.topology import Names
from consumer.calls.intake import Intake
from consumer.calls.messages.gate import Gate
from consumer.calls.placement.placer import Placer
from consumer.calls.queries import Queries

PLACED_AT_ONCE = 2000
"""How many messages the placer handles at once. Others wait in the queue."""


class SharedConsumers:
    """Consumes the shared queues, each on a channel of its own. A worker that leaves stops in two steps.

    ``prefetch`` is the most raw events, and the most requests, that it handles at once.
    """

    def __init__(
        self, names: Names, gate: Gate, *, placer: Placer, intake: Intake, queries: Queries, prefetch: int
    ) -> None:
        self._names = names
        self._gate = gate
        self._placer = placer
        self._intake = intake
        self._queries = queries
        self._prefetch = prefetch
        self._channels: dict[str, Channel] = {}
        self._consumer_tags: dict[str, str] = {}
        self._link: Link | None = None
        self._places = True
        self._takes = True

    async def attach(self, link: Link) -> None:
        """Consume on a new link, except from queues that this worker has stopped consuming as it leaves."""
        names, before = self._names, self._gate.before
        self._link = link
        if self._places:
            await self._place(link)
        if self._takes:
            calls = await self._channel(link, "calls", prefetch=self._prefetch)
            queries = await self._channel(link, "queries", prefetch=self._prefetch)
            self._consumer_tags["calls"] = await calls.consume(names.calls, before(self._intake.take))
            self._consumer_tags["queries"] = await queries.consume(names.queries, before(self._queries.take))
            if not self._takes:
                await self._give_back("calls", "queries")

    async def _place(self, link: Link) -> None:
        unowned = await self._channel(link, "unowned", prefetch=PLACED_AT_ONCE)
        self._placer.attach(unowned)
        self._consumer_tags["unowned"] = await unowned.consume(
            self._names.unowned, self._gate.before(self._placer.take)
        )
        if not self._places:  # it was asked to stop meanwhile
            await self._give_back("unowned")

    async def _channel(self, link: Link, name: str, *, prefetch: int) -> Channel:
        self._channels[name] = channel = await link.channel(prefetch=prefetch)
        return channel

    async def detached(self) -> None:
        """Note that the link is lost, with everything in progress on it."""
        self._channels, self._consumer_tags, self._link = {}, {}, None
        await self._placer.detach()
        await self._intake.detach()
        await self._queries.detach()

    # Leaving.

    async def place_last(self) -> None:
        """Leave placing to another worker if there is one, and go on otherwise.

        RabbitMQ makes that consumer the placer which has waited longest. So this worker consumes anew.
        """
        await self._resign()
        if self._link is not None:
            with suppress(BrokerError):  # the next link consumes
                await self._place(self._link)

    async def stop_placing(self) -> None:
        """Stop being the placer, for good."""
        self._places = False
        await self._resign()

    async def _resign(self) -> None:
        await self._placer.resign(0.5)
        # Closed, not cancelled: the next placer gets what is unacknowledged back in order, and nothing before that.
        await self._give_back("unowned")
        self._consumer_tags.pop("unowned", None)

    async def stop_taking(self, timeout: float) -> None:
        """Stop consuming raw events and cluster requests; wait at most ``timeout`` seconds for those in progress."""
        self._takes = False
        for name, tag in list(self._consumer_tags.items()):
            with suppress(BrokerError, KeyError):
                await self._channels[name].cancel(tag)
        for room in (self._intake, self._queries):
            await room.drain(timeout)
        await self._give_back("calls", "queries")

    async def _give_back(self, *names: str) -> None:
        for name in names:
            if (channel := self._channels.pop(name, None)) is not None:
                with suppress(BrokerError):
                    await channel.close()
