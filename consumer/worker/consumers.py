"""The consumers of a worker: its queues, its channels and who takes what they deliver, on each link anew."""

import asyncio
from contextlib import suppress

import structlog

from consumer.broker.channel import MOST_HELD, Channel
from consumer.broker.declare import consumers_of, ensure
from consumer.broker.errors import BrokerError, NameTaken
from consumer.broker.link import Link
from consumer.broker.message import Delivery, Handler
from consumer.broker.topology import Binding, CallExchange, cluster_topology, inbox, requests_queue, worker_queue
from consumer.calls.cluster.inbox_probe import PROBE, Liveness
from consumer.worker.wiring import Parts

PLACED_AT_ONCE = 2000
"""How many messages the placer has in hand; what waits for room beyond that waits in the queue."""

RIVAL_TIMEOUT = 1.0
"""How long (s) another process under our id may take to answer; our own former life never does."""

log = structlog.get_logger(__name__)


class Consumers:
    """Declares, binds and consumes on each new link.

    ``hear`` takes what comes to the worker's own queue, ``liveness`` the probes that come through its inbox.
    """

    def __init__(self, parts: Parts, hear: Handler, liveness: Liveness) -> None:
        self._parts = parts
        self._hear = hear
        self._liveness = liveness
        self._channels: dict[str, Channel] = {}
        self._consumer_tags: dict[str, str] = {}
        self._inbox_consumer = ""

    async def attach(self, link: Link, *, shared: bool) -> None:
        """Consume on a new link; without ``shared`` nothing that other workers take as well."""
        parts = self._parts
        parts.link.attach(link)
        own = parts.settings.worker
        extra = [CallExchange(one.exchange, one.type, one.routing_key, one.arguments) for one in own.call_exchanges]
        control = await link.channel()
        await ensure(
            link,
            cluster_topology(
                parts.names, grace=own.grace, max_dead_letter_bytes=own.max_dead_letter_bytes, call_exchanges=extra
            ),
        )
        mine = worker_queue(parts.names, parts.worker_id, link.token)
        fast = requests_queue(parts.names, parts.worker_id, link.token)
        for queue in (fast, mine):
            await control.declare_queue(queue)
        await control.bind(Binding(parts.names.workers, mine.name))
        parts.rpc_client.attach(mine.name)
        await control.consume(mine.name, self._hear, no_ack=True)
        if own.worker_id is not None:
            await self._see_that_nobody_has_our_id(link)
        await control.declare_queue(inbox(parts.names, parts.worker_id))
        parts.ownership.owned_calls.attach(control, fast.name)
        self._channels = {"control": control}
        self._inbox_consumer = await control.consume(
            parts.names.inbox(parts.worker_id), parts.gate.before(self._take_from_inbox)
        )
        requests = await self._channel(link, "requests")
        await requests.consume(fast.name, parts.gate.before(parts.owner.take), no_ack=True)
        await parts.presence_requests.send(ended_calls_to=mine.name)
        if shared:
            await self._consume_shared(link)

    async def _see_that_nobody_has_our_id(self, link: Link) -> None:
        """A consumer of our inbox is another process, or our own former life that the broker still believes in."""
        parts = self._parts
        if not await consumers_of(link, parts.names.inbox(parts.worker_id)):
            return
        parts.joining = True
        try:
            await parts.presence_requests.send()
            await asyncio.wait({parts.rival}, timeout=RIVAL_TIMEOUT)
        finally:
            parts.joining = False
        if parts.rival.done():
            raise NameTaken(f"another process is worker {parts.worker_id!r}")

    def _take_from_inbox(self, delivery: Delivery) -> None:
        if delivery.type == PROBE:
            self._liveness.heard(delivery)
            self._parts.tasks.start(delivery.ack(), "probe-ack")
        else:
            self._parts.owner.take(delivery)

    async def _channel(self, link: Link, name: str, *, prefetch: int = MOST_HELD) -> Channel:
        self._channels[name] = channel = await link.channel(prefetch=prefetch)
        return channel

    async def _consume_shared(self, link: Link) -> None:
        parts = self._parts
        prefetch = parts.settings.worker.calls_prefetch
        unowned = await self._channel(link, "unowned", prefetch=PLACED_AT_ONCE)
        parts.placer.attach(unowned)
        calls = await self._channel(link, "calls", prefetch=prefetch)
        queries = await self._channel(link, "queries", prefetch=prefetch)
        self._consumer_tags = {
            "unowned": await unowned.consume(parts.names.unowned, parts.gate.before(parts.placer.take)),
            "calls": await calls.consume(parts.names.calls, parts.gate.before(parts.intake.take)),
            "queries": await queries.consume(parts.names.queries, parts.gate.before(parts.queries.take)),
        }

    async def detached(self) -> None:
        """The link is lost, and with it whatever was under way on it."""
        parts = self._parts
        parts.link.detach()
        self._channels, self._consumer_tags = {}, {}
        parts.rpc_client.detach()
        parts.presence.deafened()
        parts.ownership.owned_calls.detach()
        await parts.placer.detach()
        await parts.intake.detach()
        await parts.queries.detach()

    # Leaving.

    async def stop_placing(self) -> None:
        """Be the placer no longer, and never again."""
        await self._parts.placer.resign(0.5)
        # Closed, not cancelled: the next placer gets what is unacknowledged back in order, and nothing before that.
        await self._give_back("unowned")
        self._consumer_tags.pop("unowned", None)

    async def stop_taking(self, timeout: float) -> None:
        """Stop consuming raw events and cluster requests; wait at most ``timeout`` seconds for those in progress."""
        for name, tag in self._consumer_tags.items():
            with suppress(BrokerError, KeyError):
                await self._channels[name].cancel(tag)
        for room in (self._parts.intake, self._parts.queries):
            await room.drain(timeout)
        await self._give_back("calls", "queries")

    async def _give_back(self, *names: str) -> None:
        for name in names:
            if (channel := self._channels.pop(name, None)) is not None:
                with suppress(BrokerError):
                    await channel.close()

    async def delete_inbox(self) -> None:
        """Delete the inbox if it is empty; messages and recipes that are left in it become orphans."""
        control = self._channels.get("control")
        if control is None or self._parts.ownership.owned_calls.holds_recipes:
            return
        queue = inbox(self._parts.names, self._parts.worker_id)
        with suppress(BrokerError):
            if not await control.declare_queue(queue):  # quorum queues know no "delete if empty"
                await control.cancel(self._inbox_consumer)
                await control.delete_queue(queue.name)
