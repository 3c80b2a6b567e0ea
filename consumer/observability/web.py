"""``/livez``, ``/readyz`` and ``/metrics`` over HTTP; the only module that imports starlette and uvicorn.

It serves in the worker's own loop, so that an answer proves that the loop runs, and takes no signals. Whoever reaches
the port can cost it a few connections for a short time, and no more.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import structlog
import uvicorn
from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from consumer.observability.listening import listen
from consumer.observability.metrics import REGISTRY

log = structlog.get_logger(__name__)

CLOSE_PATIENCE = 1.0
"""How long (s) closing may take; whoever is being answered has so long to take the answer."""

MAX_CONNECTIONS = 32
"""How many there may be at once. One more, and the oldest that nothing is being answered on is closed."""

REQUEST_PATIENCE = 5.0
"""How long (s) a connection may take to send its first request."""

LIFETIME = 60.0
"""How long (s) a connection may last, whatever is said on it: for several scrapes, and not for ever."""

MAX_HEAD = 16 << 10
"""Bytes of a request's head."""


class _Connection(H11Protocol):
    """One connection, with an end to everything that its client can draw out."""

    opened_at = 0.0
    _ends: tuple[asyncio.TimerHandle, ...] = ()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.opened_at = self.loop.time()
        self._ends = (
            self.loop.call_later(REQUEST_PATIENCE, self._end_unless_used),
            self.loop.call_later(LIFETIME, transport.abort),
        )
        others = [one for one in self.connections if isinstance(one, _Connection) and one is not self]
        if len(others) >= MAX_CONNECTIONS:
            idle = [one for one in others if one.is_idle] or [self]
            min(idle, key=lambda one: one.opened_at).transport.abort()

    def _end_unless_used(self) -> None:
        if self.cycle is None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in self._ends:
            timer.cancel()


class _Everything(Collector):
    """Our own metrics and those of the process: its memory, processor time and descriptors."""

    def __init__(self) -> None:
        self._process = ProcessCollector(registry=CollectorRegistry())

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()
        yield from self._process.collect()


@cache
def _everything() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Everything())
    return registry


def exposed_metrics(accept: str) -> tuple[bytes, str]:
    """The metrics of this process and their content type, in the format that ``accept`` asks for."""
    encode, content_type = choose_encoder(accept)
    return encode(_everything()), content_type


class _Server(uvicorn.Server):
    """Without signal handlers: the worker has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Web:
    """Serves from ``open`` to ``close``; ``readiness`` tells under ``ready`` whether the worker is, and why."""

    def __init__(self, host: str, port: int, readiness: Callable[[], Mapping[str, object]]) -> None:
        self._host = host
        self.port = port
        self._readiness = readiness
        app = Starlette(
            routes=[
                Route("/livez", self._live),
                Route("/readyz", self._ready),
                Route("/metrics", self._metrics),
            ]
        )
        self._server = _Server(
            uvicorn.Config(
                app,
                loop="none",
                http=_Connection,
                h11_max_incomplete_event_size=MAX_HEAD,
                log_level="error",  # a request that is none would be a line of the log each
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=round(CLOSE_PATIENCE),
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the address is somebody else's, or none of this machine's.
        """
        listening = listen(self._host, self.port)
        host, port = listening.getsockname()[:2]
        self.port = port
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]), name="http")
        log.info("http.listening", host=host, port=port)

    async def close(self) -> None:
        """Answer who has asked, and listen no more; bounded."""
        assert self._serving is not None
        self._server.should_exit = True
        _, late = await asyncio.wait({self._serving}, timeout=2 * CLOSE_PATIENCE)
        for task in late:
            task.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def _live(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, _: Request) -> Response:
        told = self._readiness()
        return JSONResponse(dict(told), status_code=200 if told["ready"] else 503)

    async def _metrics(self, request: Request) -> Response:
        body, content_type = exposed_metrics(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})
