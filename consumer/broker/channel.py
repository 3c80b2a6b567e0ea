"""A channel of aiormq with safe methods to declare, bind and consume.

* A cancelled RPC closes its channel, so every RPC runs shielded in a task of its own.
* A delivery may be settled twice in our code (a tool call is acknowledged before it is executed); the broker would
  close the channel for it, so the second time does nothing.
* Delivery callbacks are tasks of the channel and are cancelled with it, so a handler only takes the delivery over.
* RPCs take turns on a channel, a round trip each: bindings that come together are made together.
* Any loss (closed channel, consumer cancelled by the broker) is a loss of the whole link: there is one way to recover.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiormq
from aio_pika.abc import AbstractChannel
from aiormq import spec
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused

from consumer.broker.errors import BrokerUnavailable, Unsendable
from consumer.broker.given_up import library_gives_up
from consumer.broker.message import Delivery, Handler
from consumer.broker.pending import Pending
from consumer.broker.properties import received
from consumer.broker.refused_operations import Operation, not_permitted
from consumer.broker.topology import Binding, Exchange, Queue
from consumer.observability.logs import get_shared_logger
from consumer.observability.reasons import reason_of

log = get_shared_logger(__name__)

T = TypeVar("T")

MOST_HELD: Final = 65_535
"""How many deliveries a consumer may hold unacknowledged (AMQP 0-9-1, ``basic.qos``)."""

RPC_TIMEOUT = 30.0
"""How long (s) the broker may take to answer a declare, bind or consume; quorum queues elect a leader first."""


@dataclass(slots=True, eq=False)
class _Bindings:
    """Bindings that are declared together, in one round trip."""

    wanted: list[Binding] = field(default_factory=list)
    made: bool = False


def _heed(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # who asked may have been cancelled: then nobody else retrieves it


class Channel:
    """A channel of the consuming connection."""

    def __init__(
        self,
        pika: AbstractChannel,
        raw: aiormq.Channel,
        pending: Pending,
        on_loss: Callable[[str], None],
        is_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pika = pika  # held, or it is collected and closes under us
        self._raw = raw
        self._pending = pending
        self._on_loss = on_loss
        self._is_lost = is_lost
        self._closed_by_us = False
        self._bindings = _Bindings()
        self._binding = asyncio.Lock()
        self._prefetch = 0
        self._asking = asyncio.Lock()
        self._question: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[Any]] = set()
        raw.on_consumer_cancel_callbacks.add(self._consumer_cancelled)
        raw.closing.add_done_callback(self._closed)

    @property
    def is_closed(self) -> bool:
        """Whether the channel is closed."""
        return bool(self._raw.is_closed)

    def _closed(self, closing: "asyncio.Future[Any]") -> None:
        why = None if closing.cancelled() else closing.exception()
        if not self._closed_by_us:
            self._on_loss(f"a channel was closed: {why!r}")

    def _consumer_cancelled(self, frame: spec.Basic.Cancel) -> None:
        self._on_loss(f"the broker cancelled consumer {frame.consumer_tag}")

    async def _rpc(self, call: Coroutine[Any, Any, T], operation: Operation = "other") -> T:
        async def bounded() -> T:
            async with self._pending.bounded(RPC_TIMEOUT):
                with library_gives_up():
                    return await call

        task = asyncio.create_task(bounded(), name="broker-rpc")
        self._running.add(task)
        task.add_done_callback(self._done)
        task.add_done_callback(_heed)
        try:
            return await asyncio.shield(task)
        except (ValueError, TypeError) as error:  # the library's word for what AMQP has no way to say
            raise Unsendable(f"AMQP cannot express this request: {error}") from error
        except ChannelAccessRefused as error:
            raise not_permitted(error, operation) from error
        except Exception as error:
            raise BrokerUnavailable(f"the broker did not complete the request: {reason_of(error)}") from error

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)

    async def declare_exchange(self, exchange: Exchange, *, passive: bool = False) -> None:
        """Declare an exchange. Idempotent; an error if the exchange exists with other arguments."""
        await self._rpc(
            self._raw.exchange_declare(
                exchange.name,
                exchange_type=exchange.type,
                durable=exchange.durable,
                passive=passive,
                arguments=dict(exchange.arguments),
            ),
            "look" if passive else "declare",
        )

    async def declare_queue(self, queue: Queue, *, passive: bool = False) -> int:
        """Declare a queue and return the number of its ready messages.

        Idempotent; fails if an existing queue differs.
        """
        declared = await self._rpc(
            self._raw.queue_declare(
                queue.name,
                durable=not queue.exclusive,
                exclusive=queue.exclusive,
                passive=passive,
                arguments=dict(queue.arguments),
            ),
            "look" if passive else "declare",
        )
        return declared.message_count or 0

    async def counts(self, queue: str) -> tuple[int, int]:
        """Return the number of ready messages of a queue, and of its consumers."""
        declared = await self._rpc(self._raw.queue_declare(queue, passive=True), "look")
        return declared.message_count or 0, declared.consumer_count or 0

    async def is_left_alone(self, queue: str) -> bool:
        """Return whether a queue has messages and no consumer."""
        ready, consumers = await self.counts(queue)
        return bool(ready) and not consumers

    async def consumers_of(self, queue: str) -> int:
        """Return the number of consumers of an existing queue. This changes nothing."""
        declared = await self._rpc(self._raw.queue_declare(queue, passive=True), "look")
        return declared.consumer_count or 0

    async def bind(self, binding: Binding) -> None:
        """Bind a queue. Idempotent. Bindings that are requested while another one is under way share one round trip."""
        await self._rpc(self._bound(binding), "bind")

    async def _bound(self, binding: Binding) -> None:
        together = self._bindings
        together.wanted.append(binding)
        async with self._binding:
            if together is self._bindings:  # who comes first binds for all who have come since
                self._bindings = _Bindings()
                await self._bind_all(together.wanted)
                together.made = True
        if not together.made:
            raise BrokerUnavailable("the call could not be bound: a binding that was sent together with it failed")

    async def _bind_all(self, bindings: Sequence[Binding]) -> None:
        bind = self._raw.queue_bind
        *others, last = bindings
        for one in others:
            await bind(one.queue, one.source, one.routing_key, nowait=True, arguments=dict(one.arguments))
        # The broker does in order what it is told on a channel: its answer to the last is its answer to all.
        await bind(last.queue, last.source, last.routing_key, arguments=dict(last.arguments))

    async def unbind(self, binding: Binding) -> None:
        """Remove a binding. Idempotent."""
        await self._rpc(
            self._raw.queue_unbind(
                binding.queue,
                binding.source,
                routing_key=binding.routing_key,
                arguments=dict(binding.arguments),
            ),
            "bind",
        )

    async def delete_queue(self, name: str) -> None:
        """Delete a queue and its messages. Idempotent."""
        await self._rpc(self._raw.queue_delete(name), "delete")

    async def delete_exchange(self, name: str) -> None:
        """Delete an exchange; idempotent."""
        await self._rpc(self._raw.exchange_delete(name), "delete")

    async def purge_queue(self, name: str) -> int:
        """Empty a queue. Return the number of messages that were in it."""
        purged = await self._rpc(self._raw.queue_purge(name), "purge")
        return purged.message_count or 0

    async def prefetch(self, count: int) -> None:
        """Limit each consumer that starts from now on to ``count`` unacknowledged deliveries.

        0 is no limit for a classic queue and 2000 for a quorum queue.
        """
        await self._rpc(self._raw.basic_qos(prefetch_count=count))
        self._prefetch = count

    async def proven(self) -> None:
        """Wait for an answer of the broker, which proves that it has not requeued what this channel holds.

        A broker that has given the connection up answers nothing, long before this side notices. Callers that come
        while another one waits for its turn share its answer.
        """
        if self._question is None:
            self._question = asyncio.create_task(self._rpc(self._asked()), name="broker-proof")
            self._question.add_done_callback(_heed)
        await asyncio.shield(self._question)

    async def _asked(self) -> None:
        async with self._asking:
            self._question = None  # the answer to this one is too old for who comes from now on
            await self._raw.basic_qos(prefetch_count=self._prefetch)  # changes nothing, and costs the broker nothing

    async def consume(self, queue: str, handler: Handler, *, no_ack: bool = False) -> str:
        """Start to consume. Return the consumer tag."""

        async def take(delivered: DeliveredMessage) -> None:
            if self._is_lost():
                return  # what it brings now may be another's already
            delivery = self._delivery(delivered, queue, no_ack=no_ack)
            try:
                handler(delivery)
            except Exception:
                log.exception("delivery.defect", type=delivery.type, queue=queue)
                await delivery.reject()  # nobody holds it, so nobody would ever settle it

        started = await self._rpc(self._raw.basic_consume(queue, take, no_ack=no_ack), "consume")
        assert started.consumer_tag is not None
        return started.consumer_tag

    async def cancel(self, consumer_tag: str) -> None:
        """Stop a consumer. Its deliveries stay unacknowledged."""
        await self._rpc(self._raw.basic_cancel(consumer_tag))

    async def close(self) -> None:
        """Close the channel, without reporting a lost link. The broker requeues what was not acknowledged."""
        self._closed_by_us = True
        await self._rpc(self._raw.close())

    def _delivery(self, delivered: DeliveredMessage, queue: str, *, no_ack: bool) -> Delivery:
        tag = delivered.delivery_tag
        settled = False

        async def settle(*, requeue: bool | None) -> None:
            nonlocal settled
            if settled or self._raw.is_closed or tag is None:
                return  # settled before, or the broker has it back already
            settled = True
            try:
                async with self._pending.bounded():
                    if requeue is None:
                        await self._raw.basic_ack(tag, wait=False)
                    else:
                        # from RabbitMQ 4.3 on, a nack that requeues does not count for the delivery limit; this does
                        await self._raw.basic_reject(tag, requeue=requeue, wait=False)
            except Exception as error:  # noqa: BLE001 - whatever it is, the broker has the message back
                log.debug("delivery.settled_too_late", queue=queue, error=reason_of(error))

        return Delivery(
            message=received(delivered),
            queue=queue,
            exchange=delivered.exchange or "",
            routing_key=delivered.routing_key or "",
            redelivered=bool(delivered.redelivered),
            received_at=time.monotonic(),
            settle=None if no_ack else settle,
            user=delivered.header.properties.user_id,
        )
