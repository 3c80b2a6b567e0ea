"""The composition root: one worker, from its settings to its last acknowledgement.

Leaving is a written sequence, with budgets (s) whose sum stays under Heroku's 30:

1. say so: presence and ``worker.draining``                        at once
2. stop consuming raw events, unowned messages and questions      1
3. wait for what has been taken of them                           3
4. hand over or close every call                                  ``drain_timeout`` (15)
5. stop every MCP process that is left                            in 4
6. flush the events, ``worker.stopped`` the last of them          2
7. empty the inbox and delete it, close channels and connections  2

A second signal hurries: running tool calls are given up, and so is whatever waits.
"""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import structlog
from pydantic import ValidationError

from consumer import __version__
from consumer.broker.asking import Asker
from consumer.broker.channel import Channel
from consumer.broker.declare import ensure
from consumer.broker.errors import BrokerError, BrokerUnreachable
from consumer.broker.link import Link
from consumer.broker.message import Delivery, Message
from consumer.broker.outbox import Outbox
from consumer.broker.publisher import Publisher
from consumer.broker.settling import Settler
from consumer.broker.supervisor import Supervisor
from consumer.broker.topology import Binding, CallExchange, Names, cluster, inbox, requests_queue, worker_queue
from consumer.calls.context import Context, Timings, ToolProcess
from consumer.calls.endings import Endings
from consumer.calls.gate import Gate
from consumer.calls.intake import Intake
from consumer.calls.liveness import Liveness
from consumer.calls.owner import Owner
from consumer.calls.placer import Placer
from consumer.calls.presence import INTERVAL, SETTLE, Presence
from consumer.calls.queries import Queries
from consumer.calls.reporting import Reporter
from consumer.calls.tasks import Tasks
from consumer.processes.manager import MCPManager
from consumer.processes.starter import ColdStarter
from consumer.sessions import SessionCreated, SessionEnded, SessionManager
from consumer.settings import Settings
from schemas.events import EndReason
from schemas.ids import CallId, WorkerId
from schemas.internal import Endings as EndingsMessage
from schemas.internal import OwnerCheck, PresenceRequest, SessionsScatter
from schemas.internal import Presence as PresenceMessage
from schemas.replies import REPLY_SUFFIX, parse_reply
from schemas.sessions import ServiceLoad, WorkerInfo, WorkerState

log = structlog.get_logger(__name__)


class Exit(IntEnum):
    """Exit codes of the worker."""

    DRAINED = 0
    BAD_CONFIGURATION = 2
    BROKER_UNREACHABLE = 3
    DRAIN_TIMED_OUT = 4


def new_worker_id() -> WorkerId:
    """An id that no other worker has ever had, and that is a valid part of a queue name."""
    host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())[:40]
    return WorkerId(f"{host}-{os.getpid()}-{secrets.token_hex(3)}")


class Worker:
    """One worker. ``run`` lives until it is told to ``leave``."""

    def __init__(self, settings: Settings) -> None:
        own = settings.worker
        self.settings = settings
        self.worker_id = WorkerId(own.worker_id) if own.worker_id else new_worker_id()
        self.names = Names(own.prefix)
        self.state: WorkerState = "starting"
        self._started_at = datetime.now(UTC)
        self._publisher = Publisher()
        self._outbox = Outbox(self._publisher)
        self._presence = Presence(own.grace)
        self._reporter = Reporter(self.worker_id, self.names, self._outbox)
        self._context = Context(
            worker_id=self.worker_id,
            names=self.names,
            publisher=self._publisher,
            settler=Settler(self._publisher, self.names.dead),
            reporter=self._reporter,
            presence=self._presence,
            endings=Endings(self.worker_id, self.names, self._publisher, own.tombstone),
            services=settings.services,
            routes=settings.routes,
            timings=Timings(tombstone=own.tombstone, admission_wait=own.admission_wait),
        )
        self._mcp = MCPManager(
            {str(name): service for name, service in settings.services.items()},
            starter=ColdStarter(folder=settings.session.sandbox_dir),
        )
        self._sessions: SessionManager[ToolProcess] = SessionManager(settings.session, on_event=self._on_session)
        self._asker = Asker(self._publisher)
        self._owner = Owner(self._context, self._sessions, self._mcp.create_client)
        self._placer = Placer(self._context)
        self._intake = Intake(self._context, self._asker, self._ignored)
        self._queries = Queries(self._context, self._sessions, self._mcp.get_service_tools, self._asker)
        self._supervisor = Supervisor(
            settings.amqp_url.get_secret_value(),
            f"mcp-sessions {self.worker_id}",
            self._publisher,
            attach=self._attach,
            detached=self._detached,
            heartbeat=own.heartbeat,
        )
        self._liveness = Liveness(self._publisher, self._supervisor.up, self._owner.holdings.inbox, self._restart_link)
        self._owner.probed = self._liveness.heard
        self._link: Link | None = None
        self._channels: dict[str, Channel] = {}
        self._consumers: dict[str, str] = {}
        self._inbox_consumer = ""
        self._tasks = Tasks()
        self._gate = Gate(self._context.settler, own.max_message, self._tasks.start)
        self._leaving = asyncio.Event()
        self._hurry = asyncio.Event()
        self._news = asyncio.Event()
        self._attached_before = False

    # What happens to sessions, and who is told.

    def _on_session(self, event: SessionCreated[ToolProcess] | SessionEnded[ToolProcess]) -> None:
        self._owner.on_session(event)
        self._news.set()

    def _ignored(self, source: str, what: str) -> None:
        log.debug("call_event.ignored", source=source, what=what)

    def info(self) -> WorkerInfo:
        """This worker as the others see it."""
        limits = self._sessions.limits
        return WorkerInfo(
            worker_id=self.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            state=self.state,
            started_at=self._started_at,
            sessions=self._sessions.count(),
            capacity=limits.max_total_sessions,
            services={
                name: ServiceLoad(
                    sessions=self._sessions.count(name),
                    max_sessions=limits.per_service.get(name, limits.max_sessions_per_service),
                    warm=self._mcp.warm(name),
                    **service.public(),
                )
                for name, service in self.settings.services.items()
            },
        )

    async def _announce(self) -> None:
        message = PresenceMessage(worker=self.info(), placements=dict(self._owner.placements))
        self._presence.heard(message, self.worker_id)
        with suppress(BrokerError):  # the next report is a second away
            await self._publisher.fast(
                Message(body=message.model_dump_json().encode(), type=PresenceMessage.type, persistent=False),
                self.names.workers,
                "",
            )

    async def _keep_announcing(self) -> None:
        while True:
            await self._supervisor.up.wait()  # before, the exchange may not be there
            self._news.clear()
            await self._announce()
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._news.wait()
                await asyncio.sleep(SETTLE)

    # Links.

    @property
    def healthy(self) -> bool:
        """Whether a call can be given to this worker; see ``consumer.calls.liveness``."""
        return self._liveness.healthy and self._publisher.attached

    def _restart_link(self, reason: str) -> None:
        if self._link is not None:
            self._link.fail(reason)

    async def _attach(self, link: Link) -> None:
        self._link = link
        own = self.settings.worker
        extra = [CallExchange(one.exchange, one.type, one.routing_key, one.arguments) for one in own.call_exchanges]
        control = await link.channel()
        await ensure(link, cluster(self.names, grace=own.grace, call_exchanges=extra))
        mine = worker_queue(self.names, self.worker_id, link.token)
        fast = requests_queue(self.names, self.worker_id, link.token)
        for queue in (inbox(self.names, self.worker_id), fast, mine):
            await control.declare_queue(queue)
        await control.bind(Binding(self.names.workers, mine.name))
        self._asker.attach(mine.name)
        self._owner.holdings.attach(control, fast.name)
        self._channels = {"control": control}
        await control.consume(mine.name, self._hear, no_ack=True)
        self._inbox_consumer = await control.consume(self._owner.holdings.inbox, self._gate.before(self._owner.take))
        requests = await self._channel(link, "requests")
        await requests.consume(fast.name, self._gate.before(self._owner.take), no_ack=True)
        await self._ask_for_reports()
        if not self._leaving.is_set():
            await self._consume_shared(link)
            if self.state == "starting":
                self.state = "ready"
                self._reporter.worker("started", version=__version__, host=socket.gethostname(), pid=os.getpid())
        await self._announce()
        if self._attached_before:
            self._owner.reattached()
        self._attached_before = True

    async def _channel(self, link: Link, name: str, *, prefetch: int = 0) -> Channel:
        self._channels[name] = channel = await link.channel(prefetch=prefetch)
        return channel

    async def _consume_shared(self, link: Link) -> None:
        unowned = await self._channel(link, "unowned")
        self._placer.attach(unowned)
        calls = await self._channel(link, "calls", prefetch=self.settings.worker.calls_prefetch)
        queries = await self._channel(link, "queries", prefetch=self.settings.worker.calls_prefetch)
        self._consumers = {
            "unowned": await unowned.consume(self.names.unowned, self._gate.before(self._placer.take)),
            "calls": await calls.consume(self.names.calls, self._gate.before(self._intake.take)),
            "queries": await queries.consume(self.names.queries, self._gate.before(self._queries.take)),
        }

    async def _ask_for_reports(self) -> None:
        question = PresenceRequest(worker_id=self.worker_id)
        message = Message(body=question.model_dump_json().encode(), type=PresenceRequest.type, persistent=False)
        await self._publisher.fast(message, self.names.workers, "")

    async def _detached(self) -> None:
        self._channels, self._consumers = {}, {}
        self._asker.detach()
        self._presence.deafened()
        self._owner.holdings.detach()
        await self._placer.detach()
        await self._intake.detach()
        await self._queries.detach()

    # What the other workers say.

    def _hear(self, delivery: Delivery) -> None:
        match delivery.type:
            case PresenceMessage.type:
                self._hear_presence(delivery)
            case PresenceRequest.type:
                self._news.set()
                self._context.endings.tell_all()
            case EndingsMessage.type:
                self._context.endings.hear(delivery)
            case SessionsScatter.type:
                if delivery.message.reply_to != self._asker.reply_to:  # or it is our own question to everybody
                    self._queries.take_scatter(delivery)
            case kind if kind == OwnerCheck.type + REPLY_SUFFIX:
                self._hear_owner(delivery)
            case _:
                if not self._asker.heard(delivery):
                    log.debug("worker.heard_too_late", type=delivery.type)

    def _hear_presence(self, delivery: Delivery) -> None:
        try:
            message = PresenceMessage.model_validate_json(delivery.message.body)
        except ValidationError as error:  # of another version: it will be taken for silent
            log.warning("presence.unreadable", error=str(error))
            return
        if message.worker.worker_id != self.worker_id:
            self._presence.heard(message, self.worker_id)

    def _hear_owner(self, delivery: Delivery) -> None:
        answer = parse_reply(delivery.message.body).result or {}
        call_id = CallId(str(answer.get("call_id")))
        if answer.get("ended"):
            self._owner.give_up(call_id, EndReason.CALL_ENDED)
        elif answer.get("owner", self.worker_id) != self.worker_id:
            self._owner.give_up(call_id, EndReason.SUPERSEDED)

    # Life.

    def leave(self) -> None:
        """Begin to leave; a second time: hurry. For signal handlers."""
        if self._leaving.is_set():
            log.warning("worker.hurrying")
            self._hurry.set()
        else:
            log.info("worker.leaving")
            self._leaving.set()

    async def run(self, ready: Callable[[], None] = lambda: None) -> Exit:
        """Live until ``leave``; ``ready`` is called when the first link is attached. Returns the exit code."""
        log.info("worker.starting", worker_id=self.worker_id, version=__version__, prefix=self.names.prefix)
        self._mcp.warm_up(self._news.set)
        self._tasks.start(self._keep_announcing(), "presence")
        self._tasks.start(self._outbox.run(), "outbox")
        self._tasks.start(self._liveness.run(), "liveness")
        self._tasks.start(self._owner.renew(), "recipe-renewal")
        self._tasks.start(self._owner.heartbeat.run(), "heartbeat")
        supervising = asyncio.create_task(
            self._supervisor.run(connect_timeout=self.settings.worker.connect_timeout), name="supervisor"
        )
        leaving = asyncio.create_task(self._leaving.wait(), name="leaving")
        attached = asyncio.create_task(self._supervisor.up.wait(), name="attached")
        try:
            await asyncio.wait({supervising, leaving, attached}, return_when=asyncio.FIRST_COMPLETED)
            if attached.done():
                ready()
                log.info("worker.ready", worker_id=self.worker_id)
            await asyncio.wait({supervising, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if supervising.done():
                return self._gave_up(supervising)
            return await self._drain()
        finally:
            await _cancelled(leaving, attached)
            await self._sessions.shutdown()
            await self._mcp.shutdown()
            await _cancelled(supervising)
            await self._owner.stop(0)
            await self._context.endings.stop()
            await self._tasks.cancel()

    def _gave_up(self, supervising: asyncio.Task[None]) -> Exit:
        error = supervising.exception()
        if isinstance(error, BrokerUnreachable):
            log.error("broker.unreachable", error=str(error))
            return Exit.BROKER_UNREACHABLE
        assert error is not None, "the supervisor never ends by itself"
        raise error

    async def _drain(self) -> Exit:
        self.state = "draining"
        self._reporter.worker("draining")
        self._tasks.start(self._mcp.cool_down(), "cool-down")
        await self._announce()
        # Closed, not cancelled: the next placer gets what is unacknowledged back in order, and nothing before that.
        await self._placer.resign(0.5)
        await self._give_back("unowned")
        self._consumers.pop("unowned", None)
        for name, tag in self._consumers.items():
            with suppress(BrokerError, KeyError):
                await self._channels[name].cancel(tag)
        for room in (self._intake, self._queries):
            await room.drain(1.0)
        await self._give_back("calls", "queries")
        in_time = await self._until_hurried(
            self._owner.leave(self._presence.others_ready(self.worker_id), self.settings.worker.drain_timeout)
        )
        await self._sessions.shutdown()
        self.state = "stopped"
        self._reporter.worker("stopped")
        await self._announce()
        if not await self._outbox.flush(2.0):
            log.warning("worker.events_unsent", count=len(self._outbox))
        await self._retire_inbox()
        log.info("worker.stopped", drained=in_time)
        return Exit.DRAINED if in_time else Exit.DRAIN_TIMED_OUT

    async def _until_hurried(self, work: Any) -> bool:
        doing = asyncio.create_task(work, name="leaving-calls")
        hurried = asyncio.create_task(self._hurry.wait(), name="hurried")
        await asyncio.wait({doing, hurried}, return_when=asyncio.FIRST_COMPLETED)
        await _cancelled(hurried)
        if doing.done():
            return bool(doing.result())
        await _cancelled(doing)
        return False

    async def _give_back(self, *names: str) -> None:
        for name in names:
            if (channel := self._channels.pop(name, None)) is not None:
                with suppress(BrokerError):
                    await channel.close()

    async def _retire_inbox(self) -> None:
        """Send on what still came, and delete the inbox if it is empty; what is left in it becomes an orphan."""
        control = self._channels.get("control")
        if control is None:
            return
        with suppress(BrokerError):
            await asyncio.sleep(0.3)  # other cluster nodes route on old data for a moment
            await self._owner.stop(1.0)
            queue = inbox(self.names, self.worker_id)
            if not await control.declare_queue(queue):  # quorum queues know no "delete if empty"
                await control.cancel(self._inbox_consumer)
                await control.delete_queue(queue.name)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def run_worker(settings: Settings) -> Exit:
    """Run a worker until SIGTERM or SIGINT; the second signal hurries."""
    worker = Worker(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.leave)
    return await worker.run()
