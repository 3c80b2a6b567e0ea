"""The simulated node: names, routing, dead letters, and what can be done to it."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from tests.simulation.broker.queues import Queue
from tests.simulation.broker.routing import Exchange
from tests.simulation.broker.session import Refused, ServerChannel, ServerConnection
from tests.simulation.broker.stored import Published, Stored, died, is_cycle
from tests.simulation.broker.timing import Delays, NoDelays, RealTime, Timing

if TYPE_CHECKING:
    from tests.simulation.broker.client import SimulatedConnection

DEAD_LETTER_AGAIN = 180.0
"""When (s) a dead letter that found no queue is tried again (``dead_letter_worker_publisher_confirm_timeout``)."""


class Watching(Protocol):
    """Who waits for certain frames and deliveries."""

    def frame(self, channel: ServerChannel, method: str, args: tuple[Any, ...]) -> bool:
        """Look at a frame before it is handled; returns whether it is lost with its connection."""
        ...

    def delivery(self, channel: ServerChannel, message: Published, redelivered: bool) -> None:
        """Look at a message that goes to a consumer."""
        ...


class Node:
    """One RabbitMQ of a version; what differs between versions is where ``version`` is read."""

    def __init__(
        self,
        timing: Timing | None = None,
        delays: Delays | None = None,
        chance: random.Random | None = None,
        version: tuple[int, ...] = (3, 10),
    ) -> None:
        self.version = version
        self.timing: Timing = timing or RealTime()
        self.delays = delays or NoDelays()
        self.chance = chance or random.Random(0)
        self.user = "guest"
        self.up = True
        self.alarm = False
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, Queue] = {}
        self.connections: dict[ServerConnection, None] = {}
        self.clients: dict[SimulatedConnection, None] = {}
        """Connections as their clients have them, open or not yet."""
        self.unreachable: dict[Any, float] = {}
        """Whose connections do not come about until when."""
        self.leaderless: dict[str, float] = {}
        """Queues that take nothing, until when: what is published to one waits in its channel, and goes with it."""
        self.not_there_yet: set[str] = set()
        """Queues that have not come up since the last start."""
        self._number = 0
        self.frames = 0
        """How many it was sent."""
        self._soon = 0.0
        self.trace: Callable[[str, str, tuple[Any, ...]], None] | None = None
        self.aims: Watching | None = None
        self.on_publish: Callable[[Published, list[str]], None] = lambda *_: None
        for kind in ("direct", "topic", "fanout", "headers"):
            self.exchanges[f"amq.{kind}"] = Exchange(f"amq.{kind}", kind, {})

    def soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Do something after a moment, as another process of the broker would."""
        self.timing.at(self.timing.now() + self.delays.next(), None, callback, *args)

    # Names.

    def exchange(self, name: str) -> Exchange:
        if name not in self.exchanges:
            raise Refused(404, f"NOT_FOUND - no exchange '{name}' in vhost '/'")
        return self.exchanges[name]

    def queue(self, name: str, asker: ServerConnection | None) -> Queue:
        queue = self.queues.get(name)
        if queue is None:
            raise Refused(404, f"NOT_FOUND - no queue '{name}' in vhost '/'")
        if queue.owner is not None and queue.owner is not asker:
            raise Refused(405, f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}'")
        return queue

    def declare_exchange(self, name: str, kind: str, arguments: dict[str, Any], *, passive: bool) -> None:
        if passive:
            self.exchange(name)
            return
        known = self.exchanges.setdefault(name, Exchange(name, kind, arguments))
        if (known.kind, known.arguments) != (kind, arguments):
            raise Refused(406, f"PRECONDITION_FAILED - inequivalent arg for exchange '{name}'")

    def declare_queue(
        self,
        name: str,
        arguments: dict[str, Any],
        *,
        durable: bool,
        owner: ServerConnection | None,
        passive: bool,
        asker: ServerConnection | None,
    ) -> Queue:
        if passive or name in self.queues:
            queue = self.queue(name, asker)
            if not passive and (queue.arguments, queue.owner) != (arguments, owner):
                raise Refused(406, f"PRECONDITION_FAILED - inequivalent arg for queue '{name}'")
            return queue
        queue = self.queues[name] = Queue(self, name, arguments, durable=durable, owner=owner)
        return queue

    def delete(self, queue: Queue) -> None:
        """Delete a queue with whatever is in it; its consumers are told."""
        queue.gone = True
        self.queues.pop(queue.name, None)
        for exchange in self.exchanges.values():
            exchange.forget(queue.name)
        for consumer in queue.all_consumers:
            if not consumer.cancelled:
                consumer.channel.consumer_cancelled(consumer)

    # Messages.

    def publish(self, message: Published) -> bool:
        """Put a message where it is routed to; returns whether any queue takes it.

        Raises:
            Refused: there is no such exchange.
        """
        queues = self._route(message)
        self.on_publish(message, queues)
        for name in queues:
            self._number += 1
            self.queues[name].publish(message, self._number)
        return bool(queues)

    def takes_at(self, message: Published) -> float:
        """When the queues that a message is routed to take it."""
        if not self.leaderless:
            return 0.0
        return max((self.leaderless.get(name, 0.0) for name in self._route(message)), default=0.0)

    def _route(self, message: Published) -> list[str]:
        if not message.exchange:
            return [message.routing_key] if message.routing_key in self.queues else []
        exchange: Exchange | None = self.exchange(message.exchange)
        seen = set()
        while exchange is not None and exchange.name not in seen:
            seen.add(exchange.name)
            if queues := exchange.route(message.routing_key, message.headers):
                return queues
            exchange = self.exchanges.get(exchange.arguments.get("alternate-exchange", ""))
        return []

    def dead_letter(self, queue: Queue, stored: Stored, reason: str) -> None:
        """Publish a dead letter; one that finds no queue is tried again where it is to be delivered at least once."""
        if queue.gone or stored not in queue.leaving:
            return
        if not self.up:
            return  # the queue has it, and begins anew when the node does
        exchange = queue.arguments["x-dead-letter-exchange"]
        key = queue.arguments.get("x-dead-letter-routing-key", stored.message.routing_key)
        now = self.timing.now()
        message = died(stored, queue.name, reason, exchange, key, now, self.version)
        targets = self._route(message) if exchange in self.exchanges or not exchange else []
        kept = [name for name in targets if reason == "rejected" or not is_cycle(message, name)]
        if self.not_there_yet.intersection(targets) or not targets:
            if queue.arguments.get("x-dead-letter-strategy") == "at-least-once":
                self.timing.at(now + DEAD_LETTER_AGAIN, None, self.dead_letter, queue, stored, reason)
                return
            kept = []
        del queue.leaving[stored]
        self.on_publish(message, kept)
        for name in kept:
            self._number += 1
            self.queues[name].publish(message, self._number)

    # What can be done to it.

    def connect(self, client: "SimulatedConnection") -> ServerConnection | None:
        """A connection, if the node is up."""
        if not self.up or self.unreachable.get(client.owner, 0.0) > self.timing.now():
            return None
        connection = ServerConnection(self, client)
        self.connections[connection] = None
        return connection

    def set_alarm(self, *, on: bool) -> None:
        """A memory or disk alarm: who publishes is not listened to until it is over."""
        self.alarm = on
        if not on:
            for connection in list(self.connections):
                connection.unblocked()

    def stop(self) -> None:
        """Go down: connections end, exclusive queues go, what was not acknowledged is in its queue again."""
        for connection in list(self.connections):
            connection.client.broken("the broker has gone")
            connection.end()
        self.up = False

    def start(self, late: dict[str, float] | None = None) -> None:
        """Come up again; ``late`` queues come so many seconds after the others."""
        self.up = True
        now = self.timing.now()
        for name, seconds in (late or {}).items():
            self.not_there_yet.add(name)
            self.timing.at(now + seconds, None, self.not_there_yet.discard, name)
        for queue in self.queues.values():
            for stored, reason in queue.leaving.items():
                self.soon(self.dead_letter, queue, stored, reason)
            queue.kick()
