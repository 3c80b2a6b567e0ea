"""The consumers of a worker: its queues and channels, and the handlers of their deliveries, on each link anew."""

import asyncio

import structlog

from consumer.broker.channel import Channel
from consumer.broker.declare import consumers_of, ensure
from consumer.broker.errors import BrokerError, NameTaken
from consumer.broker.link import Link
from consumer.broker.message import Delivery, Handler
from consumer.broker.rpc import RpcClient
from consumer.broker.topology import (
    Binding,
    CallExchange,
    Names,
    cluster_topology,
    inbox,
    requests_queue,
    worker_queue,
)
from consumer.calls.cluster.inbox_probe import PROBE, Liveness
from consumer.calls.cluster.membership import Presence
from consumer.calls.cluster.presence_requests import PresenceRequests
from consumer.calls.messages.gate import Gate
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.calls.ownership.owner import Owner
from consumer.concurrency.task_set import Tasks
from consumer.settings.models import WorkerSettings
from consumer.worker.current_link import CurrentLink
from consumer.worker.id_claim import IdClaim
from consumer.worker.shared_consumers import SharedConsumers
from schemas.ids import WorkerId

log = structlog.get_logger(__name__)

RIVAL_TIMEOUT = 1.0
"""How long (s) another process with our id may take to answer. An old connection of ours never answers."""


class Consumers:
    """Declares, binds and consumes on each new link.

    ``hear`` takes messages from the worker's own queue, ``liveness`` the probes from its inbox, and ``owner`` the
    messages for its calls.
    """

    def __init__(
        self,
        worker_id: WorkerId,
        names: Names,
        settings: WorkerSettings,
        link: CurrentLink,
        *,
        claim: IdClaim,
        hear: Handler,
        liveness: Liveness,
        gate: Gate,
        owner: Owner,
        owned_calls: OwnedCalls,
        rpc_client: RpcClient,
        presence: Presence,
        presence_requests: PresenceRequests,
        shared: SharedConsumers,
        tasks: Tasks,
    ) -> None:
        self._worker_id = worker_id
        self._names = names
        self._settings = settings
        self._link = link
        self._claim = claim
        self._hear = hear
        self._liveness = liveness
        self._gate = gate
        self._owner = owner
        self._owned_calls = owned_calls
        self._rpc_client = rpc_client
        self._presence = presence
        self._presence_requests = presence_requests
        self.shared = shared
        """The consumers of the queues that all workers share."""
        self._tasks = tasks
        self._control: Channel | None = None
        self._inbox_consumer = ""
        self._inbox_closed = False
        self._left_in_inbox = False
        """Whether the closed inbox has given us a message that we did not take."""

    async def attach(self, link: Link) -> None:
        """Consume on a new link."""
        self._link.attach(link)
        names, own = self._names, self._settings
        extra = [
            CallExchange(one.exchange, one.type, one.routing_key, one.arguments, one.durable)
            for one in own.call_exchanges
        ]
        control = await link.channel()
        await ensure(
            link,
            cluster_topology(
                names, grace=own.grace, max_dead_letter_bytes=own.max_dead_letter_bytes, call_exchanges=extra
            ),
        )
        mine = worker_queue(names, self._worker_id, link.token)
        fast = requests_queue(names, self._worker_id, link.token)
        for queue in (fast, mine):
            await control.declare_queue(queue)
        await control.bind(Binding(names.workers, mine.name))
        self._presence.bound()
        self._rpc_client.attach(mine.name)
        await control.consume(mine.name, self._hear, no_ack=True)
        if own.worker_id is not None:
            await self._see_that_nobody_has_our_id(link)
        await control.declare_queue(inbox(names, self._worker_id))
        self._owned_calls.attach(control, fast.name)
        self._control = control
        self._inbox_consumer = await control.consume(
            names.inbox(self._worker_id), self._gate.before(self._take_from_inbox)
        )
        requests = await link.channel()
        await requests.consume(fast.name, self._gate.before(self._owner.take), no_ack=True)
        await self._presence_requests.send(ended_calls_to=mine.name)
        await self.shared.attach(link)

    async def _see_that_nobody_has_our_id(self, link: Link) -> None:
        """Check that no other process consumes our inbox. An old connection of ours may, if the broker keeps it."""
        if not await consumers_of(link, self._names.inbox(self._worker_id)):
            return
        with self._claim.joining():
            await self._presence_requests.send()
            await asyncio.wait({self._claim.rival}, timeout=RIVAL_TIMEOUT)
        if self._claim.rival.done():
            raise NameTaken(f"another process is worker {self._worker_id!r}")

    def _take_from_inbox(self, delivery: Delivery) -> None:
        if delivery.type == PROBE:
            self._liveness.heard(delivery)
            self._tasks.start(delivery.ack(), "probe-ack")
        elif self._inbox_closed:
            self._left_in_inbox = True  # given back with its channel
        else:
            self._owner.take(delivery)

    async def detached(self) -> None:
        """Note that the link is lost, with everything in progress on it."""
        self._link.detach()
        self._control = None
        self._rpc_client.detach()
        self._presence.deafened()
        self._owned_calls.detach()
        await self.shared.detached()

    def close_inbox(self) -> None:
        """Take nothing more from the inbox, over this link or the next.

        A recipe that arrived later could make this worker report an end that it has no time left to finish.
        """
        self._inbox_closed = True

    async def delete_inbox(self, *, untold: int = 0) -> None:
        """Delete the inbox unless something in it is still needed. Then its messages and recipes become orphans.

        ``untold`` is how many events RabbitMQ has not confirmed: their recipes must stay.
        """
        if reason := self._inbox_needed(untold) or await self._delete_if_empty():
            log.info("worker.inbox_left", queue=self._owned_calls.inbox, reason=reason)

    def _inbox_needed(self, untold: int) -> str | None:
        if untold:
            return "events"
        if self._owned_calls.calls:
            return "calls"
        return "recipes" if self._owned_calls.needs_recipes else None

    async def _delete_if_empty(self) -> str | None:
        """Delete the inbox if it has no message. Return why not, if it stays.

        Quorum queues do not support ``if_empty``.
        """
        control = self._control
        queue = inbox(self._names, self._worker_id)
        try:
            if control is None:
                return "no_link"
            if await control.declare_queue(queue):
                return "messages"
            await control.cancel(self._inbox_consumer)
            if self._left_in_inbox:
                return "messages"
            await control.delete_queue(queue.name)
        except BrokerError:
            return "no_link"
        return None
