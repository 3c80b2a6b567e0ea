"""The client's side of a simulated connection: what ``consumer.broker`` uses of aio_pika's and aiormq's objects.

A channel is one of aiormq's by type, and nothing of it by behaviour: it has no socket, and no task that reads.
"""

# mypy: disable-error-code="override"
# The library has more parameters, and overloads for what we never ask.

import asyncio
from collections.abc import Callable
from typing import Any

import aiormq
from aiormq import spec
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelClosed,
    ChannelInvalidStateError,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    PublishError,
)
from pamqp.header import ContentHeader

from tests.simulation.broker.node import Node
from tests.simulation.broker.session import ServerChannel, ServerConnection
from tests.simulation.broker.stored import Published
from tests.simulation.broker.timing import Pipe
from tests.simulation.broker.wire import Delivered, Properties, check_address, publication

_REFUSALS = {
    403: ChannelAccessRefused,
    404: ChannelNotFoundEntity,
    405: ChannelLockedResource,
    406: ChannelPreconditionFailed,
}


class SimulatedConnection:
    """A connection, as ``aio_pika.Connection`` offers it."""

    def __init__(self, node: Node, url: Any, *, client_properties: dict[str, Any] | None = None) -> None:
        self._node = node
        self.name = str((client_properties or {}).get("connection_name", ""))
        self.close_callbacks: set[Callable[..., Any]] = set()
        self.owner = node.timing.owner()
        self.heartbeat = float(url.query.get("heartbeat", 10)) if hasattr(url, "query") else 10.0
        self.to_server = Pipe(node.timing, node.delays, None)
        self.from_server = Pipe(node.timing, node.delays, self.owner)
        self._channels: dict[int, SimulatedChannel] = {}
        self._number = 0
        self.server: ServerConnection | None = None
        self.closed = False
        node.clients[self] = None

    async def connect(self, timeout: float | None = None) -> None:
        """Connect; fails as a refused or an unreachable socket does."""
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.to_server.send(self._arrive, opened)
        async with asyncio.timeout(timeout):
            await opened

    def _arrive(self, opened: "asyncio.Future[None]") -> None:
        self.server = self._node.connect(self)
        self.from_server.send(self._connected, opened, self.server is not None)

    def _connected(self, opened: "asyncio.Future[None]", accepted: bool) -> None:
        if opened.done():
            return
        if accepted:
            opened.set_result(None)
        else:
            opened.set_exception(ConnectionRefusedError("nobody listens"))

    def channel(self, *, publisher_confirms: bool = True, on_return_raises: bool = False) -> "PikaChannel":
        """A channel that is not open yet."""
        if self.server is None:
            raise RuntimeError("Connection was not opened")
        self._number += 1
        raw = SimulatedChannel(self, self._number, publisher_confirms)
        self._channels[self._number] = raw
        return PikaChannel(raw)

    def forget(self, number: int) -> None:
        self._channels.pop(number, None)

    async def close(self) -> None:
        """Close; the broker learns of it a moment later."""
        if not self.closed:
            if self.server is not None:
                self.to_server.send(self.server.lost)
            self.lost("closed by us")

    def lost(self, reason: str) -> None:
        """Nothing goes through any more, and whoever waits is told."""
        if self.closed:
            return
        self.closed = True
        self._node.clients.pop(self, None)
        error = ConnectionClosed(320, reason)
        for raw in list(self._channels.values()):
            raw.end(error)
        for callback in list(self.close_callbacks):
            callback(self, error)

    # What can be done to it; in the broker's time, not in the owner's.

    def broken(self, reason: str) -> None:
        """The other side has gone: the owner hears of it after what is on its way."""
        self.from_server.send(self.lost, reason)

    def cut(self, *, client_after: float | None, server_after: float, tail: float = 0.0) -> None:
        """Nothing goes through from now on, but for what arrives within the ``tail`` (s).

        Each side notices when it does, the client perhaps never.
        """
        timing = self._node.timing
        now = timing.now()
        self.to_server.cut(now + tail)
        self.from_server.cut(now)
        if client_after is not None:
            timing.at(now + client_after, self.owner, self.lost, "cut")
        timing.at(now + max(server_after, tail), None, self._end_server)

    def loses_the_rest(self) -> bool:
        """Lose what is on its way to the broker, if the connection is over; returns whether it is."""
        if self.to_server.is_cut:  # the broker notices when it does
            self.to_server.cut(self._node.timing.now())
            return True
        if self.closed:
            self.cut(client_after=None, server_after=0.0)
        return self.closed

    def _end_server(self) -> None:
        if self.server is not None:
            self.server.lost()


class PikaChannel:
    """What is used of ``aio_pika.Channel``."""

    def __init__(self, raw: "SimulatedChannel") -> None:
        self._raw = raw

    async def initialize(self, timeout: float | None = None) -> None:
        await self._raw.open_it()

    async def get_underlay_channel(self) -> "SimulatedChannel":
        return self._raw

    async def close(self) -> None:
        await self._raw.close()


class _WriteQueue:
    """Takes frames that were written already."""

    def __init__(self, channel: "SimulatedChannel") -> None:
        self._channel = channel

    def put_nowait(self, written: ChannelFrame) -> None:
        self._channel.send("basic_publish", *publication(written.payload), False)

    async def put(self, written: ChannelFrame) -> None:
        self.put_nowait(written)


class SimulatedChannel(aiormq.Channel):
    """What is used of ``aiormq.Channel``."""

    def __init__(self, connection: SimulatedConnection, number: int, confirms: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.simulated = connection
        self.number = number
        self._with_confirms = confirms
        assert connection.server is not None
        self._server = ServerChannel(connection.server, number, self)
        self._closing = self.loop.create_future()
        self._closing.add_done_callback(lambda done: done.exception())
        self._turn = asyncio.Lock()
        self._reply: asyncio.Future[Any] | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self.consumers = {}
        self.confirmations = {}
        self.delivery_tag = 0
        self.max_content_size = 131_064
        self.on_consumer_cancel_callbacks = set()
        self.write_queue = _WriteQueue(self)  # type: ignore[assignment]
        self._tags = 0

    def __str__(self) -> str:
        return f"channel {self.number} of {self.simulated.name}"

    __repr__ = __str__

    def send(self, method: str, *args: Any) -> None:
        connection = self.simulated
        assert connection.server is not None
        connection.to_server.send(connection.server.handle, self._server, method, args)

    async def _ask(self, method: str, *args: Any) -> Any:
        async with self._turn:
            if self.is_closed:
                raise ChannelInvalidStateError(f"{self!r} closed")
            self._reply = self.loop.create_future()
            self.send(method, *args)
            try:
                return await self._reply
            except asyncio.CancelledError:
                if not self.is_closed:  # aiormq closes a channel whose RPC was cancelled
                    self.send("channel_close")
                    self.end(ChannelClosed(504, "RPC cancelled"))
                raise

    # What the other side sends.

    def answered(self, answer: tuple[Any, ...]) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(answer)

    def refused(self, code: int, text: str) -> None:
        self.end(_REFUSALS.get(code, ChannelClosed)(text))

    def confirmed(self, number: int) -> None:
        confirmation = self.confirmations.pop(number, None)
        if confirmation is not None and not confirmation.done():
            confirmation.set_result(spec.Basic.Ack(delivery_tag=number))

    def returned(self, number: int, exchange: str, key: str, properties: Any, body: bytes) -> None:
        confirmation = self.confirmations.pop(number, None)
        if confirmation is not None and not confirmation.done():
            told = spec.Basic.Return(312, "NO_ROUTE", exchange, key)
            message = DeliveredMessage(told, ContentHeader(properties=properties), body, self)
            confirmation.set_exception(PublishError(message, told))

    def delivered(self, tag: str, number: int, redelivered: bool, message: Published, properties: Properties) -> None:
        callback = self.consumers.get(tag)
        if callback is None or self.is_closed:
            return
        told: Any = Delivered(number, redelivered, message, properties)
        task = self.loop.create_task(callback(told))
        self._tasks[task] = None
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            task.result()

    def cancelled(self, tag: str) -> None:
        self.consumers.pop(tag, None)
        for callback in list(self.on_consumer_cancel_callbacks):
            callback(spec.Basic.Cancel(consumer_tag=tag))

    def end(self, error: BaseException) -> None:
        """The channel is over: whoever waits is told why, and callbacks that run are cancelled."""
        if self.is_closed:
            return
        self.simulated.forget(self.number)
        self._closing.set_exception(error)
        waiting = [*([self._reply] if self._reply is not None else []), *self.confirmations.values()]
        self.confirmations.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()
        for task in list(self._tasks):
            task.cancel()

    # What is used of aiormq's methods.

    async def open_it(self) -> None:
        await self._ask("channel_open", self._with_confirms)

    async def close(self, *_: Any, **__: Any) -> None:
        if not self.is_closed:
            await self._ask("channel_close")
            self.end(ChannelClosed(0, "closed by us"))

    async def exchange_declare(self, exchange="", *, exchange_type="direct", passive=False, arguments=None, **_):
        await self._ask("exchange_declare", exchange, exchange_type, passive, dict(arguments or {}))
        return spec.Exchange.DeclareOk()

    async def exchange_delete(self, exchange="", **_):
        await self._ask("exchange_delete", exchange)
        return spec.Exchange.DeleteOk()

    async def queue_declare(self, queue="", *, passive=False, durable=False, exclusive=False, arguments=None, **_):
        ready, consumers = await self._ask("queue_declare", queue, durable, exclusive, passive, dict(arguments or {}))
        return spec.Queue.DeclareOk(queue, ready, consumers)

    async def queue_bind(self, queue, exchange, routing_key="", *, nowait=False, arguments=None, **_):
        if nowait:
            self.send("queue_bind", queue, exchange, routing_key, dict(arguments or {}), True)
            return None
        await self._ask("queue_bind", queue, exchange, routing_key, dict(arguments or {}), False)
        return spec.Queue.BindOk()

    async def queue_unbind(self, queue, exchange, routing_key="", arguments=None, **_):
        await self._ask("queue_unbind", queue, exchange, routing_key, dict(arguments or {}))
        return spec.Queue.UnbindOk()

    async def queue_delete(self, queue="", **_):
        (count,) = await self._ask("queue_delete", queue)
        return spec.Queue.DeleteOk(count)

    async def queue_purge(self, queue="", **_):
        (count,) = await self._ask("queue_purge", queue)
        return spec.Queue.PurgeOk(count)

    async def basic_qos(self, *, prefetch_count=0, **_):
        await self._ask("basic_qos", prefetch_count)
        return spec.Basic.QosOk()

    async def basic_consume(self, queue, consumer_callback, *, no_ack=False, **_):
        self._tags += 1
        tag = f"ctag{self.number}.{self._tags}"
        self.consumers[tag] = consumer_callback
        await self._ask("basic_consume", queue, tag, no_ack)
        return spec.Basic.ConsumeOk(tag)

    async def basic_cancel(self, consumer_tag, **_):
        await self._ask("basic_cancel", consumer_tag)
        self.consumers.pop(consumer_tag, None)
        return spec.Basic.CancelOk(consumer_tag)

    async def basic_ack(self, delivery_tag, multiple=False, wait=True):
        self._refuse_when_closed()
        self.send("basic_ack", delivery_tag)

    async def basic_reject(self, delivery_tag, *, requeue=True, wait=True):
        self._refuse_when_closed()
        self.send("basic_reject", delivery_tag, requeue)

    async def basic_publish(self, body, *, exchange="", routing_key="", properties=None, mandatory=False, **_):
        self._refuse_when_closed()
        properties = properties or spec.Basic.Properties(delivery_mode=1)
        check_address(exchange, routing_key)
        self.send("basic_publish", exchange, routing_key, properties.marshal(), bytes(body), mandatory)
        if not self._with_confirms:
            return None
        self.delivery_tag += 1
        confirmation = self.confirmations[self.delivery_tag] = self.loop.create_future()
        return await confirmation

    def _refuse_when_closed(self) -> None:
        if self.is_closed:
            raise ChannelInvalidStateError(f"{self!r} closed")
