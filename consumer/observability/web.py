"""``/livez``, ``/readyz`` and ``/metrics`` over HTTP.

It runs in the worker's own loop, so an answer proves that the loop runs. It handles no signals. A client that reaches
the port can occupy only a few connections for a short time.
"""

import asyncio
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

from consumer.observability.http_connections import ConnectionBounds, SignalFreeServer, bounded
from consumer.observability.listening import listen
from consumer.observability.metrics import REGISTRY

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT = 1.0
"""How long (s) closing may take, which includes sending the last responses."""

BOUNDS = ConnectionBounds(max_connections=32, head_timeout=5.0, read_timeout=5.0, lifetime=60.0, max_head=16 << 10)
"""Limits that allow several scrapes at once."""


class _Everything(Collector):
    """Collects our own metrics and those of the process: its memory, processor time and descriptors."""

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
    """Return the metrics of this process and their content type, in the format that ``accept`` asks for."""
    encode, content_type = choose_encoder(accept)
    return encode(_everything()), content_type


class Web:
    """Serves from ``open`` to ``close``.

    ``readiness`` returns under ``ready`` whether the worker is ready, and why not.
    """

    def __init__(
        self, host: str, port: int, readiness: Callable[[], Mapping[str, object]], bounds: ConnectionBounds = BOUNDS
    ) -> None:
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
        self._server = SignalFreeServer(
            uvicorn.Config(
                app,
                loop="none",
                http=bounded(bounds),
                h11_max_incomplete_event_size=bounds.max_head,
                log_level="error",  # a request that is none would be a line of the log each
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=round(CLOSE_TIMEOUT),
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the address is in use, or not of this machine.
        """
        listening = listen(self._host, self.port)
        host, port = listening.getsockname()[:2]
        self.port = port
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]), name="http")
        log.info("http.listening", host=host, port=port)

    async def close(self) -> None:
        """Finish the current responses and close the port, within a bounded time."""
        assert self._serving is not None
        self._server.should_exit = True
        _, late = await asyncio.wait({self._serving}, timeout=2 * CLOSE_TIMEOUT)
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
