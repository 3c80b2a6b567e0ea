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
    cancelled: bool = False

    @property
    def has_credit(self) -> bool:
        return not self.cancelled and (self.no_ack or not self.prefetch or self.held < self.prefetch)


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
        self._two_heads = node.version >= (4, 3)
        self._single = bool(arguments.get("x-single-active-consumer"))
        self._ttl = arguments["x-message-ttl"] / 1000 if "x-message-ttl" in arguments else inf
        limit = arguments.get("x-delivery-limit")
        self._limit = inf if limit is None or not self.quorum else limit
        self.ready: deque[Stored] = deque()
        self.returned: deque[Stored] = deque()
        self.held: dict[Stored, None] = {}
        self.leaving: dict[Stored, str] = {}
        """Dead letters that are on their way, and why."""
        self.consumers: dict[Consumer, None] = {}
        """Who is given messages, and who was and has cancelled: RabbitMQ counts the latter while it holds some."""
        self._waiting: list[Consumer] = []
        """Consumers behind the single active one, which RabbitMQ does not count."""
        self._turns: deque[Consumer] = deque()
        """Consumers with credit, in the order in which they get messages."""
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
        counted = message.returns if self.quorum else 0
        self.ready.append(Stored(message, number, now, now + ttl, counted, redelivered=bool(counted)))
        self.kick()

    # Consumers.

    @property
    def all_consumers(self) -> list[Consumer]:
        return [*self.consumers, *self._waiting]

    def add(self, consumer: Consumer) -> None:
        if self._single and self._has_active:
            self._waiting.append(consumer)
        else:
            self._activate(consumer)

    def remove(self, consumer: Consumer, *, cancelled: bool = False) -> None:
        """A consumer takes no more; one that has cancelled, and not gone, keeps what it holds."""
        if consumer in self._waiting:
            self._waiting.remove(consumer)
            return
        consumer.cancelled = True
        if not (cancelled and self.quorum and consumer.held):
            self.consumers.pop(consumer, None)
        if self._waiting and not self._has_active:
            self._activate(self._waiting.pop(0))
        self.kick()

    @property
    def _has_active(self) -> bool:
        return any(not one.cancelled for one in self.consumers)

    def _activate(self, consumer: Consumer) -> None:
        self.consumers[consumer] = None
        self._turn(consumer)
        self.kick()

    def _turn(self, consumer: Consumer) -> None:
        """Let a consumer have its turn behind the others."""
        if consumer.has_credit and consumer not in self._turns:
            self._turns.append(consumer)

    def _lets_go(self, stored: Stored, consumer: Consumer) -> None:
        """A consumer does not hold a message any more."""
        self.held.pop(stored, None)
        consumer.held -= 1
        if consumer.cancelled and not consumer.held:
            self.consumers.pop(consumer, None)
        self._turn(consumer)

    def _next_consumer(self) -> Consumer | None:
        while self._turns:
            if self._turns[0].has_credit:
                return self._turns.popleft()
            self._turns.popleft()
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
            self._turn(consumer)
            consumer.channel.deliver(consumer, stored)
            self._expire()
        self._arm()

    def settled(self, stored: Stored, consumer: Consumer) -> None:
        """A message was acknowledged."""
        self._lets_go(stored, consumer)
        self.kick()

    def take_back(self, stored: Stored, consumer: Consumer) -> None:
        """A message comes back, to be delivered again."""
        self._lets_go(stored, consumer)
        stored.returns += 1
        stored.redelivered = True
        if self.gone:
            return
        if stored.returns > self._limit:
            if self._node.version < (4, 0):  # it counts what it gives up and what comes back: this is both
                consumer.prefetch += 1
                self._turn(consumer)
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
        self._lets_go(stored, consumer)
        self._give_up(stored, "rejected")
        self.kick()

    def purge(self) -> int:
        count = self.message_count
        self.ready.clear()
        self.returned.clear()
        return count

    # Time, and dead letters.

    def _expire(self) -> None:
        """Give up what has expired at the head; from 4.3 on, at the head of what came back and of the rest."""
        now = self._node.timing.now()
        for line in (self.returned, self.ready):
            while line and line[0].expires_at <= now:
                self._give_up(line.popleft(), "expired")
            if line and not self._two_heads:
                return

    def _arm(self) -> None:
        for line in (self.returned, self.ready):
            if line and line[0].expires_at < self._rings_at:
                self._rings_at = line[0].expires_at
                self._node.timing.at(self._rings_at, None, self._ring)
            if line and not self._two_heads:
                return

    def _ring(self) -> None:
        self._rings_at = inf
        if not self.gone:
            self._pump()

    def _give_up(self, stored: Stored, reason: str) -> None:
        if "x-dead-letter-exchange" in self.arguments:
            self.leaving[stored] = reason
            self._node.soon(self._node.dead_letter, self, stored, reason)
