"""The client's connection to the broker: sends requests and call events, receives replies and events."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from consumer.broker.declare import cluster_exchange, may_exist
from consumer.broker.errors import BrokerError, NoExchange, NotPermitted, ReplyLost, Unroutable
from consumer.broker.link import Link
from consumer.broker.message import MAX_BODY, Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.rpc import RpcClient
from consumer.broker.supervisor import Supervisor
from consumer.broker.topology import Exchange, Names, Queue
from consumer.client.broker_errors import translated, translating
from consumer.client.following import Followers
from consumer.client.home import Home
from consumer.client.lookout import Lookout
from consumer.client.missing import see_that_all_is_declared
from consumer.client.requester import OnInterim, Outgoing
from consumer.concurrency.task_set import cancel_and_wait
from consumer.observability.logs import quiet_unless_configured
from schemas.errors import (
    ClientError,
    Disconnected,
    Internal,
    InvalidReply,
    NoReply,
    NotRouted,
    NotRoutedReason,
    RequestTooLarge,
)
from schemas.headers import DEADLINE, milliseconds
from schemas.ids import routing_key
from schemas.interim import INTERIM
from schemas.replies import Reply, parse_reply
from schemas.requests import DURABLE, SessionCreate, WorkersList

LOOK_AFTER = 2.0
"""After how long (s) without a reply a client checks whether a worker runs, and after how long again."""

LARGE = 1 << 20
"""From this size (bytes) on every request is confirmed, because a broker's limit may be lower than ours."""

_LIBRARIES = ("aio_pika", "aiormq")
"""The loggers of the AMQP libraries. They log errors, with tracebacks, that they raise as well."""


def _quiet_libraries() -> None:
    quiet_unless_configured()
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:  # else the program has said what it wants to hear
            logger.setLevel(logging.CRITICAL)


class AmqpConnection:
    """A supervised connection of one client: the ``Requester`` over AMQP, and the receiver of events."""

    def __init__(self, url: str, prefix: str, connect_timeout: float) -> None:
        _quiet_libraries()
        self.names = Names(prefix)
        self._url = url
        self._connect_timeout = connect_timeout
        self._abandoned: list[object] = []
        """Parts from another process or loop.

        If they were collected, the AMQP library would close their connections.
        """
        self._make_parts()

    def _make_parts(self) -> None:
        """Make everything that belongs to one process and one event loop."""
        self._home: Home | None = None
        self._publisher = Publisher(begins_traces=True, refused=self._refused)
        self._rpc_client = RpcClient(self._publisher)
        self.followers = Followers(self.names, self._linked, self._found)
        self._to_cluster = ""
        """The exchange for requests to the cluster, on this link."""
        self._link: Link | None = None
        self._was_linked = False
        """Whether there has been a link since ``open``."""
        self._blocks = 0
        self._proven: set[str] = set()
        """The exchanges that accepted a message on this link: they exist, and this user may write to them."""
        self._answered_on: Link | None = None
        self._listening: asyncio.Task[None] | None = None
        self.lookout = Lookout(self.names, self._linked, self._is_answered)
        with translating():
            self._supervisor = Supervisor(
                self._url, "mcp-sessions client", self._publisher, attach=self._attach, detached=self._detached
            )
        self._running: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and stay connected until ``close``. Idempotent.

        Raises:
            CannotConnect: not within ``connect_timeout`` seconds.
            Disconnected: it was closed meanwhile.
            NotConnectedHere: it is connected in another event loop, which still runs.
        """
        if self._home is not None:
            if self._home.is_here():
                await self._opened()
                return
            self._leave_behind(self._home)
        self._home = Home()
        self._running = asyncio.create_task(
            self._supervisor.run(connect_timeout=self._connect_timeout), name="client-supervisor"
        )
        try:
            await self._opened()
        except BaseException:
            await self.close()
            raise

    async def _opened(self) -> None:
        """Wait for the first link."""
        running = self._running
        if running is None or self._was_linked:
            return
        up = asyncio.create_task(self._supervisor.up.wait(), name="client-up")
        try:
            await asyncio.wait({running, up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        if running.cancelled():
            raise Disconnected("the client was disconnected while it connected", executed=False, retryable=False)
        if running.done():
            with translating():
                await running

    async def enter(self) -> None:
        """Connect for a block of the caller. Blocks may be nested, and open at once in several tasks."""
        await self.open()
        self._blocks += 1

    async def leave(self) -> None:
        """End a block of the caller. The end of the last one disconnects."""
        if self._home is None or self._home.is_here():
            self._blocks -= 1
            if self._blocks > 0:
                return
        await self.close()

    async def close(self) -> None:
        """Disconnect from the broker. Requests in flight raise ``Disconnected``. Idempotent.

        Raises:
            NotConnectedHere: it is connected in another event loop, which still runs.
        """
        if self._home is not None and not self._home.is_here():
            self._leave_behind(self._home)
            return
        self._home = None
        self._was_linked = False
        self.followers.close()
        running, self._running = self._running, None
        listening, self._listening = self._listening, None
        if running is not None:
            await cancel_and_wait(running)
        if listening is not None:
            await cancel_and_wait(listening)
        await self.lookout.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment, and in this process."""
        return self._supervisor.up.is_set() and self._home is not None and not self._home.is_over()

    def _leave_behind(self, home: Home) -> None:
        """Make new parts if the old connection cannot be closed: it belongs to another process, or to an ended loop.

        Raises:
            NotConnectedHere: the other event loop still runs.
        """
        if not home.is_over():
            home.check()
        self._abandoned.append(
            (self._running, self._listening, self.lookout, self._link, self._publisher, self._supervisor)
        )
        self._make_parts()

    async def _attach(self, link: Link) -> None:
        self._link = link
        self._proven = set()
        self._to_cluster = await cluster_exchange(link, self.names)
        await self.followers.attach(link)
        self._was_linked = True

    def _refused(self, reason: str) -> None:
        """Note that the broker refused a request without a confirmation. The next ones are confirmed, and say why."""
        self._proven.clear()
        self._rpc_client.refused(reason)

    async def _detached(self) -> None:
        self._link = None
        self._rpc_client.detach()
        self.followers.detach()

    def _linked(self) -> Link:
        if self._home is not None:
            self._home.check()
        if self._link is None:
            closed = "the connection to the broker is closed; connect the client first ('async with')"
            if self._running is None:
                raise Disconnected(closed, executed=False, retryable=False)
            raise Disconnected(self._publisher.why_away, executed=False)
        return self._link

    async def _found(self, link: Link, exchange: str) -> None:
        """Check that an exchange of the topology exists.

        Raises:
            NotRouted: it does not exist.
        """
        if not await may_exist(link, Exchange(exchange, "fanout", "")):
            await see_that_all_is_declared(link, self.names)

    # Requests.

    async def ask(self, request: Outgoing, on_interim: OnInterim | None = None) -> Reply:
        """Send a request over AMQP; see ``Requester``."""
        if len(request.body) > MAX_BODY:
            raise RequestTooLarge(f"{request.type}: has {len(request.body)} bytes; a message can have {MAX_BODY}")
        loop = asyncio.get_running_loop()
        until = loop.time() + request.reply_timeout
        await self._listen(until)
        if loop.time() >= self.lookout.seen_until:
            await self.lookout.wait(until - loop.time())
        durable = request.type in DURABLE  # what expires in a durable queue would become a dead letter
        if request.call_id is None:
            exchange, key = self._to_cluster, self.names.queries
        else:
            exchange = self.names.sessions if durable else self.names.requests
            key = routing_key(request.call_id)
        timeout = until - loop.time()
        deadline = {DEADLINE: milliseconds(time.time() + timeout)} if request.type == SessionCreate.type else {}
        message = Message(
            body=request.body,
            type=request.type,
            expiration=None if durable else max(1, round(timeout * 1000)),
            persistent=durable,
            headers=deadline,
        )
        # Exclusive queues are bound to this one (see ``publisher``), and a confirmation takes longer than a short call.
        short = exchange == self.names.requests and exchange in self._proven and len(request.body) < LARGE

        async def interim(delivery: Delivery) -> None:
            model = INTERIM.get(delivery.type or "")
            if on_interim is not None and model is not None:
                await on_interim(model.model_validate_json(delivery.message.body, extra="ignore"))

        try:
            async with (
                asyncio.timeout_at(until),
                self._while_somebody_is_there() if request.call_id is None else contextlib.nullcontext(),
            ):
                answer = await self._rpc_client.ask(
                    message, exchange, key, timeout=timeout, confirm=not short, interim=interim
                )
            self._proven.add(exchange)
            return parse_reply(answer.message.body)
        except TimeoutError:
            raise NoReply(f"no reply to {request.type} within {request.reply_timeout:g} s") from None
        except Unroutable as error:
            raise await self._unroutable(error) from error
        except NotPermitted as error:
            # Where there is no exchange for it, a question takes the default one, which is not for every user.
            raise translated(error) if exchange else await self._unroutable(error) from error
        except ReplyLost as error:
            closed = "the client was disconnected before the reply came"
            raise Disconnected(closed if self._home is None else str(error)) from error
        except BrokerError as error:
            raise translated(error) from error
        except Internal as error:
            raise InvalidReply(error.message) from error

    async def _unroutable(self, error: BrokerError) -> ClientError:
        """Return the error for a message that no queue took: what the topology lacks, or else the broker's error."""
        try:
            await see_that_all_is_declared(self._linked(), self.names)
        except (NotRouted, Disconnected) as missing:
            return missing
        except BrokerError:
            pass
        return translated(error)

    async def _is_answered(self, timeout: float) -> bool:
        """Return whether a worker answers a question.

        True also if it cannot be sent, because the request will say why.
        """
        body = WorkersList(known=True).model_dump_json().encode()  # without it, each worker would be asked for a report
        question = Message(body=body, type=WorkersList.type, expiration=round(timeout * 1000))
        try:
            await self._rpc_client.ask(question, self._to_cluster, self.names.queries, timeout=timeout)
        except TimeoutError:
            return False
        except BrokerError:
            pass
        return True

    @contextlib.asynccontextmanager
    async def _while_somebody_is_there(self) -> AsyncIterator[None]:
        """Wait for an answer of the cluster, but only while a worker runs that could give it.

        This is only for questions. A request that a worker could still execute must not be given up before it has
        expired.

        Raises:
            NoReply: no worker ran at two checks in a row. A restarting worker may be away for one.
        """
        loop = asyncio.get_running_loop()
        looking: asyncio.Task[None] | None = None
        nobody = False

        async def look() -> None:
            nonlocal nobody
            if await self.lookout.is_left_alone():
                await asyncio.sleep(LOOK_AFTER)
                if await self.lookout.is_left_alone():
                    nobody = True
                    bound.reschedule(loop.time())

        def begin() -> None:
            nonlocal looking
            looking = loop.create_task(look(), name="client-looks-for-workers")

        timer = loop.call_later(LOOK_AFTER, begin)  # a task would cost each answered request more
        try:
            async with asyncio.timeout(None) as bound:
                yield
        except TimeoutError:
            if not nobody:
                raise
            raise NoReply(self.lookout.nobody) from None
        finally:
            timer.cancel()
            if looking is not None:
                await cancel_and_wait(looking)

    async def _listen(self, until: float) -> None:
        """Declare a queue for replies with the first request, because a publisher may not declare one.

        Raises:
            Forbidden: this user may not.
            Disconnected: the client is not connected, or the broker did not answer before ``until``.
        """
        link = self._linked()
        if link is self._answered_on and self._to_cluster:
            return
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen_on(link), name="client-listens")
            self._listening.add_done_callback(lambda listening: listening.cancelled() or listening.exception())
        listening = self._listening
        await asyncio.wait({listening}, timeout=until - asyncio.get_running_loop().time())
        if not listening.done():
            raise Disconnected("the broker does not answer; nothing was sent", executed=False)
        if listening.cancelled():
            raise Disconnected("the client was disconnected; nothing was sent", executed=False)
        with translating():
            listening.result()

    async def _listen_on(self, link: Link) -> None:
        if not self._to_cluster:  # it may have been declared since this link was attached
            self._to_cluster = await cluster_exchange(link, self.names)
        if link is self._answered_on:
            return
        answers = Queue(f"{self.names.prefix}.replies.{link.token}", "answers to a client", exclusive=True)
        async with link.trial() as channel:  # what is refused closes its channel, and not the link
            await channel.declare_queue(answers)
            await channel.consume(answers.name, self._heard, no_ack=True)
        if link is self._link:
            self._rpc_client.attach(answers.name)
            self._answered_on = link

    def _heard(self, delivery: Delivery) -> None:
        self.lookout.heard()
        self._rpc_client.receive(delivery)

    # The broker.

    async def publish(self, body: bytes, content_type: str, exchange: str | None, key: str) -> None:
        """Publish a call event. Returns when the broker has confirmed it."""
        self._linked()
        to = exchange or self.names.calls
        try:
            await self._publisher.publish(Message(body=body, content_type=content_type), to, key)
        except Unroutable as error:
            if exchange is None:
                raise await self._unroutable(error) from error
            if isinstance(error, NoExchange):
                raise NotRouted(
                    f"there is no exchange {exchange!r} on this broker; check its name",
                    reason=NotRoutedReason.NO_EXCHANGE,
                ) from error
            raise NotRouted(
                f"{error}: no worker's queue is bound to it with this key", reason=NotRoutedReason.NO_QUEUE
            ) from error
        except BrokerError as error:
            raise translated(error) from error

    async def count_dead_letters(self) -> int:
        """Count the dead letters."""
        link, queue = self._linked(), Queue(self.names.dead_letters, "the dead letters")
        with translating():
            if not await may_exist(link, queue):
                await see_that_all_is_declared(link, self.names)
            async with link.scratch() as scratch:
                return await scratch.declare_queue(queue, passive=True)
