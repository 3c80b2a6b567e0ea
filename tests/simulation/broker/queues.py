"""Queues of the simulated broker: quorum ones, and exclusive ones that go with their connection."""

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from tests.simulation.broker.stored import Published, Stored

if TYPE_CHECKING:
    from tests.simulation.broker.node import Node
    from tests.simulation.broker.session import ServerChannel, ServerConnection

QUORUM_PREFETCH = 2000
"""The most that RabbitMQ gives a consumer of a quorum queue that has set no limit."""


@dataclass(slots=True, eq=False)
class Consumer:
    """Who takes messages of a queue."""

    tag: str
    channel: "ServerChannel"
    queue: "Queue"
    no_ack: bool
    prefetch: int
    held: int = 0

    @property
    def has_credit(self) -> bool:
        return self.no_ack or not self.prefetch or self.held < self.prefetch


class Queue:
    """A queue; a quorum queue unless somebody owns it."""

    def __init__(
        self, node: "Node", name: str, arguments: dict[str, Any], *, durable: bool, owner: "ServerConnection | None"
    ) -> None:
        self._node = node
        self.name = name
        self.arguments = arguments
        self.durable = durable
        self.owner = owner
        self.quorum = arguments.get("x-queue-type") == "quorum"
        self._single = bool(arguments.get("x-single-active-consumer"))
        self._ttl = arguments["x-message-ttl"] / 1000 if "x-message-ttl" in arguments else inf
        limit = arguments.get("x-delivery-limit")
        self._limit = inf if limit is None or not self.quorum else limit
        self.ready: deque[Stored] = deque()
        self.returned: deque[Stored] = deque()
        self.held: dict[Stored, None] = {}
        self.leaving: dict[Stored, None] = {}
        """Dead letters that are on their way."""
        self.consumers: list[Consumer] = []
        self._active: Consumer | None = None
        self._pumping = False
        self._rings_at = inf
        self.gone = False

    @property
    def message_count(self) -> int:
        return len(self.ready) + len(self.returned)

    def publish(self, message: Published, number: int) -> None:
        """Take a message."""
        now = self._node.timing.now()
        patience = message.properties.expiration
        ttl = min(self._ttl, int(patience) / 1000 if patience else inf)
        self.ready.append(Stored(message, number, now, now + ttl))
        self.kick()

    # Consumers.

    def add(self, consumer: Consumer) -> None:
        self.consumers.append(consumer)
        if self._single and self._active is None:
            self._active = consumer
        self.kick()

    def remove(self, consumer: Consumer) -> None:
        self.consumers.remove(consumer)
        if self._active is consumer:
            self._active = self.consumers[0] if self.consumers else None
        self.kick()

    def _next_consumer(self) -> Consumer | None:
        if self._single:
            return self._active if self._active is not None and self._active.has_credit else None
        for place, consumer in enumerate(self.consumers):
            if consumer.has_credit:
                if len(self.consumers) > 1:  # in turns
                    del self.consumers[place]
                    self.consumers.append(consumer)
                return consumer
        return None

    # Giving messages out, and taking them back.

    def kick(self) -> None:
        """Look soon whether there is something to do."""
        if not self._pumping and not self.gone:
            self._pumping = True
            self._node.soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self.gone or not self._node.up:
            return
        self._expire()
        while self.returned or self.ready:
            consumer = self._next_consumer()
            if consumer is None:
                break
            stored = (self.returned or self.ready).popleft()
            if not consumer.no_ack:
                consumer.held += 1
                self.held[stored] = None
            consumer.channel.deliver(consumer, stored)
            self._expire()
        self._arm()

    def settled(self, stored: Stored, consumer: Consumer) -> None:
        """A message was acknowledged."""
        self.held.pop(stored, None)
        consumer.held -= 1
        self.kick()

    def take_back(self, stored: Stored, consumer: Consumer | None) -> None:
        """A message comes back, to be delivered again."""
        self.held.pop(stored, None)
        if consumer is not None:
            consumer.held -= 1
        stored.returns += 1
        stored.redelivered = True
        if self.gone:
            return
        if stored.returns > self._limit:
            self._give_up(stored, "delivery_limit")
        elif self.quorum:
            self.returned.append(stored)
        else:
            self._put_back(stored)
        self.kick()

    def _put_back(self, stored: Stored) -> None:
        place = next((at for at, one in enumerate(self.ready) if one.number > stored.number), len(self.ready))
        self.ready.insert(place, stored)

    def reject(self, stored: Stored, consumer: Consumer) -> None:
        """A message was rejected for good."""
        self.held.pop(stored, None)
        consumer.held -= 1
        self._give_up(stored, "rejected")
        self.kick()

    def purge(self) -> int:
        count = self.message_count
        self.ready.clear()
        self.returned.clear()
        return count

    # Time, and dead letters.

    def _expire(self) -> None:
        now = self._node.timing.now()
        while self.returned or self.ready:
            line = self.returned or self.ready
            if line[0].expires_at > now:
                return
            self._give_up(line.popleft(), "expired")

    def _arm(self) -> None:
        head = (self.returned or self.ready or (None,))[0]
        if head is not None and head.expires_at < self._rings_at:
            self._rings_at = head.expires_at
            self._node.timing.at(head.expires_at, None, self._ring)

    def _ring(self) -> None:
        self._rings_at = inf
        if not self.gone:
            self._pump()

    def _give_up(self, stored: Stored, reason: str) -> None:
        if "x-dead-letter-exchange" in self.arguments:
            self.leaving[stored] = None
            self._node.soon(self._node.dead_letter, self, stored, reason)
