"""The client's connection to the broker: requests over AMQP, call events in, events of sessions and workers out."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from consumer.broker.declare import cluster_exchange, may_exist
from consumer.broker.errors import BrokerError, BrokerUnavailable, NotPermitted, ReplyLost, Unroutable
from consumer.broker.link import Link
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.rpc import RpcClient
from consumer.broker.supervisor import Supervisor
from consumer.broker.topology import Exchange, Names, Queue
from consumer.client.broker_errors import translated, translating
from consumer.client.following import Followers
from consumer.client.home import Home
from consumer.client.requester import OnInterim, Outgoing
from consumer.concurrency.task_set import cancel_and_wait
from consumer.observability.logs import quiet_unless_configured
from schemas.errors import (
    Disconnected,
    Internal,
    InvalidReply,
    NoReply,
    NotRouted,
)
from schemas.headers import DEADLINE, milliseconds
from schemas.ids import routing_key
from schemas.interim import INTERIM
from schemas.replies import Reply, parse_reply
from schemas.requests import DURABLE, SessionCreate

LOOK_AFTER = 2.0
"""After how long (s) without a reply a client looks whether there is a worker at all, and after how long once more."""

MOST_WAITED = 4.0
"""How long (s) a request waits, unsent, for a worker to come: one that is started anew is away for a moment."""

LOOK_EVERY = 0.25
"""How long (s) from one look that finds no worker to the next."""

SEEN_FOR = 1.0
"""How long (s) after a reply there is a worker for sure, as far as requests look; a look costs a round trip."""

_LIBRARIES = ("aio_pika", "aiormq")
"""What the broker room stands on. They log, with tracebacks, what they raise as well."""


def _quiet_libraries() -> None:
    quiet_unless_configured()
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:  # else the program has said what it wants to hear
            logger.setLevel(logging.CRITICAL)


class AmqpConnection:
    """A supervised connection of one client: the ``Requester`` over AMQP, and the way of events."""

    def __init__(self, url: str, prefix: str, connect_timeout: float) -> None:
        _quiet_libraries()
        self.names = Names(prefix)
        self._url = url
        self._connect_timeout = connect_timeout
        self._abandoned: list[object] = []
        """Parts of another process or loop. Collected, the AMQP library would try to close their connections."""
        self._make_parts()

    def _make_parts(self) -> None:
        """Make everything that belongs to one process and one event loop."""
        self._home: Home | None = None
        self._publisher = Publisher(begins_traces=True)
        self._rpc_client = RpcClient(self._publisher)
        self.followers = Followers(self.names, self._linked, self._found)
        self._to_cluster = ""
        """The exchange for requests to the cluster, on this link."""
        self._link: Link | None = None
        self._present: set[str] = set()
        """The exchanges that were found on this link, and need not be looked for again."""
        self._answered_on: Link | None = None
        self._seen_until = 0.0
        """Until when (the loop's clock) a worker counts as there."""
        self._look: asyncio.Task[bool] | None = None
        self._missed = False
        """Whether the latest look has found no worker."""
        self._cannot_look: Link | None = None
        """The link on which the broker does not tell this user who consumes."""
        self._listening = asyncio.Lock()
        self._looking = asyncio.Lock()
        with translating():
            self._supervisor = Supervisor(
                self._url, "mcp-sessions client", self._publisher, attach=self._attach, detached=self._detached
            )
        self._running: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and stay connected until ``close``. Idempotent.

        Raises:
            CannotConnect: not within ``connect_timeout`` seconds.
            NotConnectedHere: it is connected in another event loop, which still runs.
        """
        if self._home is not None:
            if self._home.is_here():
                return
            self._leave_behind(self._home)
        self._home = Home()
        self._running = asyncio.create_task(
            self._supervisor.run(connect_timeout=self._connect_timeout), name="client-supervisor"
        )
        up = asyncio.create_task(self._supervisor.up.wait(), name="client-up")
        try:
            await asyncio.wait({self._running, up}, return_when=asyncio.FIRST_COMPLETED)
            if self._running.done():
                with translating():
                    await self._running
        except BaseException:
            await self.close()
            raise
        finally:
            up.cancel()

    async def close(self) -> None:
        """Disconnect from the broker. Requests in flight raise ``Disconnected``. Idempotent.

        Raises:
            NotConnectedHere: it is connected in another event loop, which still runs.
        """
        if self._home is not None and not self._home.is_here():
            self._leave_behind(self._home)
            return
        self._home = None
        running, self._running = self._running, None
        look, self._look = self._look, None
        if running is not None:
            await cancel_and_wait(running)
        if look is not None:
            await cancel_and_wait(look)

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment, and in this process."""
        return self._supervisor.up.is_set() and self._home is not None and not self._home.is_over()

    def _leave_behind(self, home: Home) -> None:
        """Begin anew where the old connection cannot be closed: it belongs to another process, or to a loop that ended.

        Raises:
            NotConnectedHere: the other event loop still runs.
        """
        if not home.is_over():
            home.check()
        self._abandoned.append((self._running, self._look, self._link, self._publisher, self._supervisor))
        self._make_parts()

    async def _attach(self, link: Link) -> None:
        self._link = link
        self._present = set()
        self._to_cluster = await cluster_exchange(link, self.names)
        await self.followers.attach(link)

    async def _detached(self) -> None:
        self._link = None
        self._rpc_client.detach()
        self.followers.detach()

    def _linked(self) -> Link:
        if self._home is not None:
            self._home.check()
        if self._link is None:
            closed = "the connection to the broker is closed; connect the client first ('async with')"
            raise Disconnected(self._publisher.why_away if self._running else closed, executed=False)
        return self._link

    async def _look_for(self, exchange: str, queue: str | None) -> None:
        """Look for what a message is to go to: RabbitMQ closes the channel of a publish without an exchange.

        Raises:
            NotRouted: it is not there.
        """
        async with self._looking:  # many may ask at once, and each look costs a channel
            link = self._linked()
            if exchange not in self._present:
                with translating():
                    await self._found(link, exchange, queue)
                if link is self._link:
                    self._present.add(exchange)

    async def _found(self, link: Link, exchange: str, queue: str | None = None) -> None:
        if not await may_exist(link, Exchange(exchange, "fanout", "")):
            if not exchange.startswith(f"{self.names.prefix}."):
                raise NotRouted(f"there is no exchange {exchange!r} on this broker; check its name")
            raise NotRouted(f"there is no exchange {exchange!r}: {self._nobody_yet()}")
        if queue is not None and not await may_exist(link, Queue(queue, "")):
            raise NotRouted(f"there is no queue {queue!r}: {self._nobody_yet()}")

    def _nobody_yet(self) -> str:
        return (
            f"nothing is declared under the prefix {self.names.prefix!r} here; check the prefix, start a worker, "
            "or run 'mcp-sessions topology apply' if the workers may not declare"
        )

    def _nobody(self) -> str:
        return f"no worker runs under the prefix {self.names.prefix!r}"

    # Requests.

    async def ask(self, request: Outgoing, on_interim: OnInterim | None = None) -> Reply:
        """Send a request over AMQP; see ``Requester``."""
        if self._linked() is not self._answered_on:
            await self._listen()
        durable = request.type in DURABLE  # what expires in a durable queue would become a dead letter
        if request.call_id is None:
            exchange, key = self._to_cluster, self.names.queries
        else:
            exchange = self.names.sessions if durable else self.names.requests
            key = routing_key(request.call_id)
            if exchange not in self._present:  # only what is confirmed is returned when no queue takes it
                await self._look_for(exchange, None if durable else self.names.unowned)
        timeout = request.reply_timeout - await self._wait_for_a_worker(request.reply_timeout)
        until = {DEADLINE: milliseconds(time.time() + timeout)} if request.type == SessionCreate.type else {}
        message = Message(
            body=request.body,
            type=request.type,
            expiration=None if durable else round(timeout * 1000),
            persistent=durable,
            headers=until,
        )

        async def interim(delivery: Delivery) -> None:
            model = INTERIM.get(delivery.type or "")
            if on_interim is not None and model is not None:
                await on_interim(model.model_validate_json(delivery.message.body, extra="ignore"))

        try:
            async with self._while_somebody_is_there() if request.call_id is None else contextlib.nullcontext():
                answer = await self._rpc_client.ask(
                    message,
                    exchange,
                    key,
                    timeout=timeout,
                    confirm=exchange != self.names.requests,  # what exclusive queues are bound to; see ``publisher``
                    interim=interim,
                )
            return parse_reply(answer.message.body)
        except TimeoutError:
            raise NoReply(f"no reply to {request.type} within {request.reply_timeout:g} s") from None
        except Unroutable as error:
            raise NotRouted(f"{error}: {self._nobody_yet()}") from error
        except ReplyLost as error:
            closed = "the client was disconnected before the reply came"
            raise Disconnected(closed if self._home is None else str(error)) from error
        except BrokerError as error:
            raise translated(error) from error
        except Internal as error:
            raise InvalidReply(error.message) from error

    async def _wait_for_a_worker(self, timeout: float) -> float:
        """Wait until there is a worker, before anything is sent; returns how long (s) that took.

        What lies in a queue cannot be taken back, and would be executed by a worker that comes later.

        Raises:
            NotRouted: none came within ``timeout`` or ``MOST_WAITED`` seconds.
            Disconnected: the broker did not even tell.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began < self._seen_until:
            return 0.0
        until = began + min(timeout, MOST_WAITED)
        missed = False
        while (left := until - loop.time()) > 0:
            look = self._look_for_a_worker()
            await asyncio.wait({look}, timeout=left)
            if look.done():
                if look.cancelled():
                    raise Disconnected("the client was disconnected; nothing was sent", executed=False)
                if look.result():
                    return loop.time() - began
                missed = True
        if missed or self._missed:
            raise NotRouted(f"{self._nobody()}; nothing was sent")
        raise Disconnected("the broker does not answer; nothing was sent", executed=False)

    def _look_for_a_worker(self) -> "asyncio.Task[bool]":
        """The look that is under way, or a new one: one for all who wait, and no waiter's end is the look's."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._is_a_worker_there(), name="client-looks-for-workers")
            self._look.add_done_callback(lambda look: look.cancelled() or look.exception())
        return self._look

    async def _is_a_worker_there(self) -> bool:
        """Whether a worker consumes what clients send; yes when that cannot be seen. A no takes ``LOOK_EVERY``."""
        self._missed = False
        # A last worker that drains places no calls any more, and still answers for those that it has.
        if await self._consumers_of(self.names.queries) or await self._consumers_of(self.names.unowned):
            self._seen_until = asyncio.get_running_loop().time() + SEEN_FOR
            return True
        self._missed = True
        await asyncio.sleep(LOOK_EVERY)
        return False

    async def _consumers_of(self, queue: str) -> bool:
        link = self._linked()
        if link is self._cannot_look:
            return True
        try:
            async with link.asking() as channel:
                return await channel.consumers_of(queue) > 0
        except NotPermitted:  # from RabbitMQ 4.3 on, where this user may neither read nor write it
            self._cannot_look = link
            return True
        except BrokerUnavailable:
            return True  # the publish tells what is wrong

    @contextlib.asynccontextmanager
    async def _while_somebody_is_there(self) -> AsyncIterator[None]:
        """Wait for an answer of the cluster, and no longer than it takes to see that the question is nobody's.

        Only for questions: what a worker would still execute must not be given up before it has expired.

        Raises:
            NoReply: it did, twice in a row: a worker that is started anew may be away for a moment.
        """
        queue = self.names.queries
        loop = asyncio.get_running_loop()
        looking: asyncio.Task[None] | None = None
        nobody = False

        async def look() -> None:
            nonlocal nobody
            if await self._left_alone(queue):
                await asyncio.sleep(LOOK_AFTER)
                if await self._left_alone(queue):
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
            raise NoReply(self._nobody()) from None
        finally:
            timer.cancel()
            if looking is not None:
                await cancel_and_wait(looking)

    async def _left_alone(self, queue: str) -> bool:
        """Whether a queue has messages and no worker; no when that cannot be seen."""
        if self._link is None:
            return False
        try:
            async with self._link.scratch() as scratch:
                return await scratch.is_left_alone(queue)
        except BrokerUnavailable:
            return False

    async def _listen(self) -> None:
        """Declare a queue for replies with the first request, because a publisher may not declare one."""
        async with self._listening:
            link = self._linked()
            if link is self._answered_on:
                return
            answers = Queue(f"{self.names.prefix}.replies.{link.token}", "answers to a client", exclusive=True)
            try:
                async with link.scratch() as scratch:  # what is refused closes its channel
                    await scratch.declare_queue(answers)
                await (await link.channel()).consume(answers.name, self._heard, no_ack=True)
            except NotPermitted as error:
                raise translated(error) from error
            except BrokerUnavailable as error:
                raise Disconnected(str(error), executed=False) from error
            self._rpc_client.attach(answers.name)
            self._answered_on = link

    def _heard(self, delivery: Delivery) -> None:
        self._seen_until = asyncio.get_running_loop().time() + SEEN_FOR
        self._rpc_client.receive(delivery)

    # The broker.

    async def publish(self, body: bytes, content_type: str, exchange: str | None, key: str) -> None:
        """Publish a call event. Returns when the broker has confirmed it."""
        self._linked()
        to = exchange or self.names.calls
        if to not in self._present:
            await self._look_for(to, None)
        try:
            await self._publisher.publish(Message(body=body, content_type=content_type), to, key)
        except Unroutable as error:
            hint = self._nobody_yet() if exchange is None else "no worker's queue is bound to it with this routing key"
            raise NotRouted(f"{error}: {hint}") from error
        except BrokerError as error:
            raise translated(error) from error

    async def count_dead_letters(self) -> int:
        """Count the dead letters."""
        link, queue = self._linked(), Queue(self.names.dead_letters, "the dead letters")
        with translating():
            if not await may_exist(link, queue):
                raise NotRouted(f"there is no queue {queue.name!r}: {self._nobody_yet()}")
            async with link.scratch() as scratch:
                return await scratch.declare_queue(queue, passive=True)
