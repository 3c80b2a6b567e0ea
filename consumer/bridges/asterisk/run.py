"""The life of the bridge: it connects to both sides, forwards events, and shuts down on a signal."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import IntEnum
from urllib.parse import urlsplit

import structlog

from consumer import __version__
from consumer.bridges.asterisk.ami import Ami
from consumer.bridges.asterisk.ari import Ari
from consumer.bridges.asterisk.bridge import Bridge
from consumer.bridges.asterisk.pbx import Pbx, PbxRefused, PbxUnreachable
from consumer.bridges.event_sender import EventSender
from consumer.broker.declare import exists
from consumer.broker.errors import BrokerUnavailable, BrokerUnreachable
from consumer.broker.link import Link
from consumer.broker.publisher import Publisher
from consumer.broker.supervisor import Supervisor, log_unreachable
from consumer.broker.topology import Exchange, Names
from consumer.concurrency.task_set import cancel_and_wait
from consumer.observability import metrics
from consumer.observability.known_secrets import learn
from consumer.observability.listening import CannotListen
from consumer.observability.metrics_port import metrics_port
from consumer.settings import Settings

log = structlog.get_logger(__name__)


class BridgeExit(IntEnum):
    """Exit codes of a bridge. They match the worker's where they mean the same."""

    LEFT = 0
    BAD_CONFIGURATION = 2
    UNREACHABLE = 3
    DRAIN_TIMED_OUT = 4


class AsteriskBridge:
    """One bridge between an Asterisk and the broker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        own = settings.asterisk
        learn([own.password.get_secret_value()] if own.password else [])
        speaks: Callable[[], Pbx] = (lambda: Ari(own)) if own.speaks == "ari" else (lambda: Ami(own))
        self._names = Names(settings.worker.prefix)
        publisher = Publisher(begins_traces=True)
        self._sender = EventSender(publisher, self._names.calls, own.max_kept)
        self._bridge = Bridge(speaks, self._sender, own.url)
        self._supervisor = Supervisor(
            settings.amqp_url.get_secret_value(),
            f"mcp-sessions bridge {urlsplit(own.url).hostname}",
            publisher,
            attach=self._attach,
            detached=self._detached,
            heartbeat=settings.worker.heartbeat,
        )
        self._attached_before = False
        self.told = asyncio.Event()
        """Set when the bridge gets the signal to shut down."""

    async def _attach(self, link: Link) -> None:
        if not await exists(link, Exchange(self._names.calls, "topic", "")):
            raise BrokerUnavailable(
                f"there is no exchange {self._names.calls}: start a worker, or run 'mcp-sessions topology apply'"
            )
        if self._attached_before:
            metrics.RECONNECTS.inc()
        self._attached_before = True
        if waiting := len(self._sender):
            log.info("bridge.sending_kept", events=waiting)

    async def _detached(self) -> None:
        pass

    async def run(self) -> BridgeExit:
        """Run until told to leave. Return the exit code."""
        timeout = self._settings.worker.connect_timeout
        log.info("bridge.starting", pbx=self._settings.asterisk.url, version=__version__, prefix=self._names.prefix)
        sending = asyncio.create_task(self._sender.run(), name="bridge-sender")
        linking = asyncio.create_task(self._supervisor.run(connect_timeout=timeout), name="bridge-supervisor")
        hearing = asyncio.create_task(self._bridge.run(connect_timeout=timeout), name="bridge-pbx")
        leaving = asyncio.create_task(self.told.wait(), name="bridge-leaving")
        ready = asyncio.create_task(self._say_ready(), name="bridge-ready")
        try:
            await asyncio.wait({sending, linking, hearing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            for task in (hearing, linking, sending):
                if task.done():
                    await task
            return await self._leave(hearing)
        except PbxRefused as error:
            log.error("pbx.refused", pbx=self._settings.asterisk.url, error=str(error))
            return BridgeExit.BAD_CONFIGURATION
        except PbxUnreachable as error:
            log.error("pbx.unreachable", pbx=self._settings.asterisk.url, error=str(error), tried_s=timeout)
            return BridgeExit.UNREACHABLE
        except BrokerUnreachable as error:
            log_unreachable(error)
            return BridgeExit.UNREACHABLE
        finally:
            await cancel_and_wait(hearing, sending, linking, leaving, ready)

    async def _say_ready(self) -> None:
        await self._supervisor.up.wait()
        await self._bridge.up.wait()
        log.info("bridge.ready", pbx=self._settings.asterisk.url, exchange=self._names.calls)

    async def _leave(self, hearing: asyncio.Task[None]) -> BridgeExit:
        """Disconnect from the PBX, and publish the remaining events."""
        log.info("bridge.draining", events=len(self._sender))
        await cancel_and_wait(hearing)
        if await self._sender.flush(self._settings.worker.drain_timeout):
            log.info("bridge.stopped")
            return BridgeExit.LEFT
        log.error("bridge.events_unpublished", events=len(self._sender), hint="the broker was unavailable for too long")
        return BridgeExit.DRAIN_TIMED_OUT

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Serve metrics and readiness on ``worker.http_port``, if it is set.

        Raises:
            CannotListen: that port cannot be listened on.
        """
        own = self._settings.worker
        async with metrics_port(own.http_host, own.http_port, self._readiness) as listening:
            if not listening:
                yield
                return
            with metrics.BRIDGE.supplied_by(self._state):
                yield

    def _readiness(self) -> dict[str, object]:
        link, pbx = self._supervisor.up.is_set(), self._bridge.up.is_set()
        return {"ready": link and pbx and not self.told.is_set(), "link": link, "pbx": pbx}

    def _state(self) -> metrics.BridgeState:
        return metrics.BridgeState(
            pbx_up=self._bridge.up.is_set(),
            link_up=self._supervisor.up.is_set(),
            events_waiting=len(self._sender),
            calls=len(self._bridge),
        )


async def run_bridge(settings: Settings) -> BridgeExit:
    """Run the bridge until SIGTERM or SIGINT. Its last events get ``worker.drain_timeout``."""
    bridge = AsteriskBridge(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, bridge.told.set)
    try:
        async with bridge.telling():
            return await bridge.run()
    except CannotListen as error:
        log.error("http.cannot_listen", error=str(error))
        return BridgeExit.BAD_CONFIGURATION
