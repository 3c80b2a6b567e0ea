"""The broker's side of a connection: its channels, what they were given, and what becomes of it when they go."""

from typing import TYPE_CHECKING, Any

from tests.simulation.broker.queues import QUORUM_PREFETCH, Consumer
from tests.simulation.broker.stored import Published, Stored
from tests.simulation.broker.wire import properties_of

if TYPE_CHECKING:
    from tests.simulation.broker.client import SimulatedChannel, SimulatedConnection
    from tests.simulation.broker.node import Node


class Refused(Exception):
    """The broker closes the channel: a reply code and its text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class ServerConnection:
    """One connection as the broker has it."""

    def __init__(self, node: "Node", client: "SimulatedConnection") -> None:
        self.node = node
        self.client = client
        self.channels: dict[int, ServerChannel] = {}
        self.closed = False
        self.publishes = False
        self._is_lost = False
        self._blocked: list[tuple[ServerChannel, str, tuple[Any, ...]]] = []

    def handle(self, channel: "ServerChannel", method: str, args: tuple[Any, ...]) -> None:
        """Do what a frame says; in an alarm, who publishes is not listened to."""
        if self.closed or not self.node.up:
            return
        if method == "basic_publish":
            self.publishes = True
        if self._is_blocked:
            self._blocked.append((channel, method, args))
            return
        channel.handle(method, args)

    @property
    def _is_blocked(self) -> bool:
        return self.node.alarm and self.publishes

    def unblocked(self) -> None:
        """The alarm is over."""
        blocked, self._blocked = self._blocked, []
        for channel, method, args in blocked:
            if not self.closed:
                channel.handle(method, args)
        if self._is_lost:
            self.end()

    def lost(self) -> None:
        """The client has gone: the broker notices when it reads what the client has sent."""
        if self._is_blocked:
            self._is_lost = True
        else:
            self.end()

    def end(self) -> None:
        """The connection is over, as far as the broker is concerned. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self.node.connections.pop(self, None)
        for channel in list(self.channels.values()):
            channel.end()
        for queue in [queue for queue in self.node.queues.values() if queue.owner is self]:
            self.node.delete(queue)


class ServerChannel:
    """One channel as the broker has it; its methods are AMQP's."""

    def __init__(self, connection: ServerConnection, number: int, client: "SimulatedChannel") -> None:
        self._connection = connection
        self._node = connection.node
        self._number = number
        self.client = client
        self.closed = False
        self._confirms = False
        self._prefetch = 0
        self._tag = 0
        self._published = 0
        self._unsettled: dict[int, tuple[Stored, Consumer]] = {}
        self._consumers: dict[str, Consumer] = {}

    def _send(self, callback: Any, *args: Any) -> None:
        self._connection.client.from_server.send(callback, *args)

    def handle(self, method: str, args: tuple[Any, ...]) -> None:
        if self.closed:
            return
        node = self._node
        node.frames += 1
        if node.trace is not None:
            node.trace(self._connection.client.name, method, args)
        if node.aims is not None and node.aims.frame(self, method, args):
            return
        try:
            answer = getattr(self, method)(*args)
        except Refused as error:
            self.end()
            self._send(self.client.refused, error.code, str(error))
        else:
            if answer is not None:
                self._send(self.client.answered, answer)

    def end(self) -> None:
        """The channel is over: what it held goes back, and its consumers are no more."""
        if self.closed:
            return
        self.closed = True
        self._connection.channels.pop(self._number, None)
        unsettled, self._unsettled = self._unsettled, {}
        for stored, consumer in unsettled.values():
            consumer.queue.take_back(stored, consumer)
        for consumer in self._consumers.values():
            if not consumer.queue.gone:
                consumer.queue.remove(consumer)

    # Methods; what they return is the answer, None is no answer.

    def channel_open(self, confirms: bool) -> tuple[()]:
        self._connection.channels[self._number] = self
        self._confirms = confirms
        return ()

    def channel_close(self) -> tuple[()]:
        self.end()
        return ()

    def exchange_declare(self, name: str, kind: str, passive: bool, arguments: dict[str, Any]) -> tuple[()]:
        self._node.declare_exchange(name, kind, arguments, passive=passive)
        return ()

    def exchange_delete(self, name: str) -> tuple[()]:
        self._node.exchanges.pop(name, None)
        return ()

    def queue_declare(
        self, name: str, durable: bool, exclusive: bool, passive: bool, arguments: dict[str, Any]
    ) -> tuple[int, int]:
        owner = self._connection if exclusive else None
        queue = self._node.declare_queue(
            name, arguments, durable=durable, owner=owner, passive=passive, asker=self._connection
        )
        return queue.message_count, len(queue.consumers)

    def queue_bind(self, queue: str, exchange: str, key: str, arguments: dict[str, Any], nowait: bool) -> Any:
        self._node.queue(queue, self._connection)
        self._node.exchange(exchange).bind(queue, key, arguments)
        return None if nowait else ()

    def queue_unbind(self, queue: str, exchange: str, key: str, arguments: dict[str, Any]) -> tuple[()]:
        if queue in self._node.queues and exchange in self._node.exchanges:
            self._node.exchanges[exchange].unbind(queue, key, arguments)
        return ()

    def queue_delete(self, name: str) -> tuple[int]:
        queue = self._node.queues.get(name)
        if queue is None:
            return (0,)
        self._node.queue(name, self._connection)
        count = queue.message_count
        self._node.delete(queue)
        return (count,)

    def queue_purge(self, name: str) -> tuple[int]:
        return (self._node.queue(name, self._connection).purge(),)

    def basic_qos(self, count: int) -> tuple[()]:
        self._prefetch = count
        return ()

    def basic_consume(self, name: str, tag: str, no_ack: bool) -> tuple[()]:
        queue = self._node.queue(name, self._connection)
        prefetch = self._prefetch or (QUORUM_PREFETCH if queue.quorum else 0)
        consumer = self._consumers[tag] = Consumer(tag, self, queue, no_ack, prefetch)
        queue.add(consumer)
        return ()

    def basic_cancel(self, tag: str) -> tuple[()]:
        consumer = self._consumers.pop(tag, None)
        if consumer is not None and not consumer.queue.gone:
            consumer.queue.remove(consumer, cancelled=True)
        return ()

    def basic_ack(self, tag: int) -> None:
        stored, consumer = self._settle(tag)
        consumer.queue.settled(stored, consumer)

    def basic_reject(self, tag: int, requeue: bool) -> None:
        stored, consumer = self._settle(tag)
        if requeue:
            consumer.queue.take_back(stored, consumer)
        else:
            consumer.queue.reject(stored, consumer)

    def _settle(self, tag: int) -> tuple[Stored, Consumer]:
        if tag not in self._unsettled:
            raise Refused(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
        return self._unsettled.pop(tag)

    def delivered(self, consumer: Consumer) -> list[Published]:
        """What a consumer was given and has not settled; nothing if its client has given the connection up."""
        if self._connection.client.closed:
            return []
        return [stored.message for stored, one in self._unsettled.values() if one is consumer]

    def message_of(self, tag: int) -> Published | None:
        """A message that was delivered here and is not settled."""
        held = self._unsettled.get(tag)
        return held[0].message if held is not None else None

    def basic_publish(self, exchange: str, key: str, wire: bytes, body: bytes, mandatory: bool) -> None:
        properties = properties_of(wire)
        if properties.user_id and properties.user_id != self._node.user:
            raise Refused(
                406,
                f"PRECONDITION_FAILED - user_id property set to '{properties.user_id}' but "
                f"authenticated user was '{self._node.user}'",
            )
        message = Published(properties, body, exchange, key)
        if self._confirms:
            self._published += 1
        takes_at = self._node.takes_at(message)
        if takes_at > self._node.timing.now():
            self._node.timing.at(takes_at, None, self._taken_late, message, self._published, mandatory)
        else:
            self._taken(message, self._published, mandatory)

    def _taken_late(self, message: Published, number: int, mandatory: bool) -> None:
        if not self.closed:
            self._taken(message, number, mandatory)

    def _taken(self, message: Published, number: int, mandatory: bool) -> None:
        routed = self._node.publish(message)
        if not self._confirms:
            return
        if not routed and mandatory:
            self._send(
                self.client.returned, number, message.exchange, message.routing_key, message.properties, message.body
            )
        self._node.soon(self._confirm, number)

    def _confirm(self, number: int) -> None:
        if not self.closed:
            self._send(self.client.confirmed, number)

    def deliver(self, consumer: Consumer, stored: Stored) -> None:
        """Give a message to a consumer."""
        self._tag += 1
        if not consumer.no_ack:
            self._unsettled[self._tag] = stored, consumer
        message = stored.message
        if self._node.aims is not None:
            self._node.aims.delivery(self, message, stored.redelivered)
        properties = message.properties
        if stored.returns and consumer.queue.quorum:
            properties = properties.changed(headers={**message.headers, "x-delivery-count": stored.returns})
        self._send(self.client.delivered, consumer.tag, self._tag, stored.redelivered, message, properties)

    def consumer_cancelled(self, consumer: Consumer) -> None:
        """The queue has gone."""
        self._consumers.pop(consumer.tag, None)
        self._send(self.client.cancelled, consumer.tag)
