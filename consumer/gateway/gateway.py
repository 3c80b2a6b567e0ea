"""The life of a gateway: it listens, handles requests, and shuts down on a signal."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from enum import IntEnum

import structlog
from starlette.routing import Route

from consumer import __version__
from consumer.client import Requester, SessionClient
from consumer.client.typed_requests import as_given
from consumer.concurrency.task_set import cancel_and_wait
from consumer.gateway.access import Doorkeeper
from consumer.gateway.application import application
from consumer.gateway.known_services import KnownServices
from consumer.gateway.mcp.changes import SessionChanges
from consumer.gateway.mcp.endpoint import Mcp
from consumer.gateway.mcp.sealing import Seal
from consumer.gateway.minting import Minting
from consumer.gateway.origins import RequestOrigins
from consumer.gateway.rate_limits import Rates, RequestsInFlight
from consumer.gateway.readiness import Readiness
from consumer.gateway.rest import Rest
from consumer.gateway.senders import Senders
from consumer.gateway.server import HttpServer
from consumer.gateway.swaig import Swaig
from consumer.gateway.webhooks import Webhooks
from consumer.observability.listening import CannotListen
from consumer.settings import Settings
from consumer.tokens import TokenKeys
from schemas.errors import AccessRefused, CannotConnect

log = structlog.get_logger(__name__)


class GatewayExit(IntEnum):
    """Exit codes of the gateway. They match the worker's where they mean the same."""

    LEFT = 0
    BAD_CONFIGURATION = 2
    BROKER_UNREACHABLE = 3
    DRAIN_TIMED_OUT = 4


class _HandingOn(SessionClient):
    """A client that forwards requests unchanged, so that the worker's errors about invalid text reach the sender."""

    _encode = staticmethod(as_given)


class Gateway:
    """One gateway. ``open`` starts it; ``leave`` ends it when all running requests are answered.

    ``middleware`` adds a requester before the broker, for a process that owns calls itself.
    """

    def __init__(self, settings: Settings, middleware: Callable[[Requester], Requester] | None = None) -> None:
        self._settings = settings
        own = settings.gateway
        self.client = _HandingOn(
            settings.amqp_url.get_secret_value(),
            prefix=settings.worker.prefix,
            connect_timeout=settings.worker.connect_timeout,
            middleware=middleware,
        )
        self.in_flight = RequestsInFlight(own.max_in_flight)
        self._changes = SessionChanges(self.client)
        self._known = KnownServices(self.client, own.call_timeout)
        self._learning: asyncio.Task[None] | None = None
        keys = TokenKeys([key.get_secret_value() for key in own.token_keys], settings.worker.prefix)
        origins, doorkeeper = RequestOrigins(own), Doorkeeper(own, keys)
        self.routes = list(self._routes(keys))
        app = application(self.routes, origins=origins, doorkeeper=doorkeeper, in_flight=self.in_flight)
        self._server = HttpServer(app, own)
        self.port = 0

    def _routes(self, keys: TokenKeys) -> Iterator[Route]:
        own = self._settings.gateway
        senders = Senders(own)
        yield from Readiness(self.client, self.in_flight).routes()
        yield from Rest(self.client, own, Rates(own.rate_limits)).routes()
        yield from Webhooks(self.client, own, senders).routes()
        yield from Swaig(self.client, own, senders, self._known).routes()
        yield from Minting(keys, own.max_body).routes()
        seal = Seal.of(own, self._settings.worker.prefix)
        yield from Mcp(self.client, own, self._known, seal, self._changes).routes()

    async def listen(self) -> None:
        """Begin to listen. The gateway answers probes before it is connected to the broker.

        Raises:
            CannotListen: the address is in use, or not of this machine.
        """
        self.port = await self._server.open()

    async def connect(self) -> None:
        """Connect to the broker.

        Raises:
            CannotConnect: no broker answers within ``connect_timeout``.
        """
        await self.client.connect()
        self._learning = asyncio.create_task(self._known.learn(), name="gateway-learns-services")
        log.info("gateway.ready", port=self.port, version=__version__)

    async def learned(self) -> None:
        """Wait until the gateway knows the workers' services and their tools."""
        if self._learning is not None:
            await asyncio.shield(self._learning)

    async def leave(self, timeout: float) -> bool:
        """Refuse new requests, and wait at most ``timeout`` seconds for running ones.

        Return whether all were answered.
        """
        self.in_flight.leaving = True
        self._changes.close()
        log.info("gateway.draining", in_flight=self.in_flight.count)
        try:
            async with asyncio.timeout(timeout):
                await self.in_flight.none_left()
        except TimeoutError:
            log.warning("gateway.requests_cut", in_flight=self.in_flight.count)
            return False
        return True

    async def close(self) -> None:
        """Disconnect, and close the port. Running requests get the error ``Disconnected``."""
        self.in_flight.leaving = True
        self._changes.close()
        if self._learning is not None:
            await cancel_and_wait(self._learning)
        self._known.close()
        await self.client.disconnect()  # first: the server would log each request that it has to cut as a defect
        await self._server.close()
        log.info("gateway.stopped")


async def run_gateway(settings: Settings) -> GatewayExit:
    """Run a gateway until SIGTERM or SIGINT. Requests in flight then get ``worker.drain_timeout``."""
    gateway = Gateway(settings)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    leaving = asyncio.create_task(told.wait(), name="gateway-leaving")
    connecting = asyncio.create_task(gateway.connect(), name="gateway-connect")
    try:
        await gateway.listen()
        await asyncio.wait({connecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done():
            await connecting
        await leaving
        return GatewayExit.LEFT if await gateway.leave(settings.worker.drain_timeout) else GatewayExit.DRAIN_TIMED_OUT
    except CannotListen as error:
        log.error("http.cannot_listen", error=str(error))
        return GatewayExit.BAD_CONFIGURATION
    except CannotConnect as error:
        log.error("broker.refused" if isinstance(error, AccessRefused) else "broker.unreachable", error=str(error))
        return GatewayExit.BROKER_UNREACHABLE
    finally:
        await cancel_and_wait(connecting, leaving)
        await gateway.close()
