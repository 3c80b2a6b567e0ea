"""The life of a worker: it starts, runs until it is told to leave, and shuts down."""

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, assert_never

import structlog

from consumer import __version__
from consumer.broker.errors import BrokerUnreachable
from consumer.broker.link import Connect, Link
from consumer.broker.supervisor import Supervisor, log_unreachable
from consumer.broker.transport import TolerantConnection
from consumer.calls.cluster.inbox_probe import Liveness
from consumer.calls.cluster.membership import STANDSTILL
from consumer.client import Requester
from consumer.concurrency.task_set import Tasks, cancel_and_wait
from consumer.observability import metrics
from consumer.observability.listening import CannotListen
from consumer.processes.launch.host_report import report_host
from consumer.processes.launch.session_root import sweep
from consumer.processes.warm.starter import Starter
from consumer.settings import ConfigurationError, Settings
from consumer.worker.consumers import Consumers
from consumer.worker.exit_codes import WorkerExit
from consumer.worker.leaving import leave
from consumer.worker.local_requests import LocalRequests
from consumer.worker.shared_consumers import SharedConsumers
from consumer.worker.status import WorkerStatus
from consumer.worker.stop_signals import StopSignals, Wish
from consumer.worker.wiring import Parts
from schemas.errors import CannotConnect
from schemas.ids import WorkerId
from schemas.sessions import WorkerInfo

log = structlog.get_logger(__name__)

RECONNECT_PAUSE = 5.0
"""How long (s) a companion waits after the broker refused it, although the worker is connected."""


class Worker:
    """One worker. ``run`` runs until ``leave`` is called.

    ``connection`` connects it to the broker, and ``starter`` to MCP servers.
    """

    def __init__(
        self, settings: Settings, *, connection: Connect = TolerantConnection, starter: Starter | None = None
    ) -> None:
        self._parts = parts = Parts(settings, starter=starter)
        self._supervisor = Supervisor(
            settings.amqp_url.get_secret_value(),
            f"mcp-sessions {parts.worker_id}",
            parts.publisher,
            attach=self._attach,
            detached=self._detached,
            heartbeat=settings.worker.heartbeat,
            standstill=STANDSTILL * settings.worker.grace,
            connection=connection,
        )
        self._liveness = Liveness(
            parts.publisher, self._supervisor.up, parts.names.inbox(parts.worker_id), parts.link.restart
        )
        self._consumers = Consumers(
            parts.worker_id,
            parts.names,
            settings.worker,
            parts.link,
            claim=parts.claim,
            hear=parts.peers.hear,
            liveness=self._liveness,
            gate=parts.gate,
            owner=parts.owner,
            owned_calls=parts.ownership.owned_calls,
            rpc_client=parts.rpc_client,
            presence=parts.presence,
            presence_requests=parts.presence_requests,
            shared=SharedConsumers(
                parts.names,
                parts.gate,
                placer=parts.placer,
                intake=parts.intake,
                queries=parts.queries,
                prefetch=settings.worker.calls_prefetch,
            ),
            tasks=parts.tasks,
        )
        self.status = WorkerStatus(
            settings.worker,
            parts.own_report,
            parts.ownership,
            parts.placer,
            presence=parts.presence,
            outbox=parts.outbox,
            phase=lambda: parts.state,
            link_up=self._supervisor.up.is_set,
            probe=lambda: self._liveness.healthy,
        )
        self._tasks = parts.tasks
        self._ready = asyncio.Event()
        self._leaving = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stop_signals = StopSignals()
        self._attached_before = False

    @property
    def worker_id(self) -> WorkerId:
        """The worker's id."""
        return self._parts.worker_id

    @property
    def healthy(self) -> bool:
        """Whether a call can be given to this worker; see ``consumer.calls.cluster.inbox_probe``."""
        return self._liveness.healthy and self._parts.publisher.attached

    async def _attach(self, link: Link) -> None:
        parts = self._parts
        staying = not self._leaving.is_set()
        await self._consumers.attach(link)
        if staying and parts.state == "starting":
            parts.state = "ready"
            parts.reporter.worker("started", version=__version__, host=socket.gethostname(), pid=os.getpid())
        await parts.reports.announce()
        if self._attached_before:
            metrics.RECONNECTS.inc()
            parts.ownership.recovery.look()
        self._attached_before = True

    def reload(self, load: Callable[[], Settings]) -> None:
        """Reload the configuration for calls that start from now on. A wrong one changes nothing."""
        try:
            settings = load()
        except ConfigurationError as error:
            for fault in error.faults:
                log.error("settings.fault", key=fault.key, problem=fault.problem)
            log.error("settings.not_reloaded", faults=len(error.faults), hint="correct them and send SIGHUP again")
            return
        needs_restart = self._parts.reload(settings)
        log.info("settings.reloaded", services=sorted(settings.services), routes=len(settings.routes))
        if needs_restart:
            log.warning("settings.need_restart", settings=needs_restart)

    async def _detached(self) -> None:
        self._liveness.lost()
        await self._consumers.detached()

    def leave(self, number: int = signal.SIGTERM) -> None:
        """Begin to leave, or hurry if called again, because signal ``number`` arrived."""
        name = signal.Signals(number).name
        match self._stop_signals.received(number, time.monotonic()):
            case Wish.LEAVE:
                log.info("worker.draining", signal=name)
                self._leaving.set()
            case Wish.HURRY:
                log.warning("worker.hurrying", signal=name)
                self._hurry.set()
            case Wish.SAME:
                log.info("worker.draining_already", signal=name)
            case other:
                assert_never(other)

    def shorter_way(self, elsewhere: Requester) -> Requester:
        """Return a requester for this process. It reaches this worker's calls without the broker."""
        return LocalRequests(self._parts.owner, self._parts.names, elsewhere)

    async def is_ready(self) -> None:
        """Wait until the worker takes calls for the first time."""
        await self._ready.wait()

    async def left(self) -> None:
        """Wait until the worker is told to leave."""
        await self._leaving.wait()

    async def run(self) -> WorkerExit:
        """Run until ``leave``. Return the exit code."""
        parts = self._parts
        log.info("worker.starting", worker_id=parts.worker_id, version=__version__, prefix=parts.names.prefix)
        sweeping = asyncio.to_thread(sweep, parts.settings.session.sandbox_dir)
        self._tasks.start(sweeping, "sweep")
        self._tasks.start(report_host(list(parts.mcp.services.values())), "host-report")
        parts.mcp.warm_up()
        self._tasks.start(parts.reports.keep_announcing(self._supervisor.up), "presence")
        self._tasks.start(parts.peers.keep_watching(self._supervisor.up, parts.link.consumed), "watch")
        self._tasks.start(parts.outbox.run(), "outbox")
        self._tasks.start(self._liveness.run(), "liveness")
        self._tasks.start(parts.ownership.recovery.run(), "recipe-renewal")
        self._tasks.start(parts.ownership.heartbeat.run(), "heartbeat")
        supervising = asyncio.create_task(
            self._supervisor.run(connect_timeout=parts.settings.worker.connect_timeout), name="supervisor"
        )
        leaving = asyncio.create_task(self._leaving.wait(), name="leaving")
        attached = asyncio.create_task(self._supervisor.up.wait(), name="attached")
        ends: set[asyncio.Future[Any]] = {supervising, leaving, parts.claim.rival}
        try:
            await asyncio.wait({*ends, attached}, return_when=asyncio.FIRST_COMPLETED)
            if attached.done():
                log.info("worker.ready", worker_id=parts.worker_id, **_configured(parts.settings))
                self._ready.set()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if parts.claim.rival.done():
                return _has_our_id(parts.claim.rival.result())
            if supervising.done():
                return _gave_up(supervising)
            return await leave(parts, self._consumers, self._tasks, self._hurry)
        finally:
            await cancel_and_wait(leaving, attached)
            await parts.sessions.shutdown()
            await parts.mcp.shutdown()
            await cancel_and_wait(supervising)
            await parts.owner.stop(0)
            await parts.endings.stop()
            await self._tasks.cancel()


def _configured(settings: Settings) -> dict[str, object]:
    """Return the configuration for the log: the file, if there is one, and the services and routes."""
    return {
        "configuration": "built in" if settings.path is None else str(settings.path.absolute()),
        "services": sorted(name for name, service in settings.services.items() if service.enabled),
        "routes": len(settings.routes),
    }


def _has_our_id(rival: WorkerInfo) -> WorkerExit:
    log.error(
        "worker.id_taken",
        worker_id=rival.worker_id,
        host=rival.host,
        pid=rival.pid,
        hint="give each worker a different worker_id, or none: then each start generates one",
    )
    return WorkerExit.BAD_CONFIGURATION


def _gave_up(supervising: asyncio.Task[None]) -> WorkerExit:
    error = supervising.exception()
    if isinstance(error, BrokerUnreachable):
        log_unreachable(error)
        return WorkerExit.BROKER_UNREACHABLE
    assert error is not None, "the supervisor never ends by itself"
    raise error


class Companion(Protocol):
    """A gateway that runs beside a worker in its process."""

    async def listen(self) -> None: ...  # noqa: D102 - see ``consumer.gateway.gateway``
    async def connect(self) -> None: ...  # noqa: D102
    async def leave(self, timeout: float) -> bool: ...  # noqa: D102
    async def close(self) -> None: ...  # noqa: D102


@asynccontextmanager
async def _accompanied(worker: Worker, companion: Companion | None, drain_timeout: float) -> AsyncIterator[None]:
    """Run a companion within this block. It refuses new requests once the worker is told to leave."""
    if companion is None:
        yield
        return

    async def join_it() -> None:
        await worker.is_ready()  # until then its requests would meet nobody
        while True:
            try:
                return await companion.connect()
            except CannotConnect as error:  # the worker has a link, or comes back to it
                log.warning("companion.not_connected", error=error.message)
                await asyncio.sleep(RECONNECT_PAUSE)

    async def leave_with_it() -> None:
        await worker.left()
        await companion.leave(drain_timeout)

    tasks = Tasks()
    await companion.listen()
    try:
        tasks.start(join_it(), "gateway-connect")
        tasks.start(leave_with_it(), "gateway-leave")
        yield
    finally:
        await tasks.cancel()
        await companion.close()


async def run_worker(
    settings: Settings, load: Callable[[], Settings], companion: Callable[[Worker], Companion] | None = None
) -> WorkerExit:
    """Run a worker until SIGTERM or SIGINT; a second one makes it hurry. SIGHUP applies what ``load`` returns.

    Readiness is reported until the end. ``companion`` makes a gateway that runs beside it.
    """
    worker = Worker(settings)
    beside = companion(worker) if companion is not None else None
    gc.collect()
    gc.freeze()  # what is there now stays: no collection stops the worker's calls to look through it again
    gc.set_threshold(10_000)  # the default looks at what tool calls in flight hold after every few, in vain
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, worker.reload, load)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.leave, number)
    try:
        async with (
            worker.status.running(exposed=beside is not None),
            _accompanied(worker, beside, settings.worker.drain_timeout),
        ):
            return await worker.run()
    except CannotListen as error:
        log.error("http.cannot_listen", error=str(error))
        return WorkerExit.BAD_CONFIGURATION
