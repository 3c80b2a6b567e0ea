"""Serves an ASGI application with uvicorn in the running loop, without uvicorn's signal handlers."""

import asyncio
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from consumer.gateway.exchange import written
from consumer.gateway.statuses import RETRY_AFTER, http_error
from consumer.observability.http_connections import ConnectionBounds, Parser, SignalFreeServer, bounded, fastest_parser
from consumer.observability.listening import BACKLOG, CannotListen, listen
from consumer.settings.gateway_settings import GatewaySettings, certificate_problem

log = structlog.get_logger(__name__)

KEEP_ALIVE: Final = 75
"""How long (s) an idle connection is kept: longer than load balancers do, so that they never use a closed one."""

CLOSE_TIMEOUT: Final = 1
HEAD_TIMEOUT: Final = 10.0
READ_TIMEOUT: Final = 30.0
MAX_HEAD: Final = 64 << 10


def _too_many() -> bytes:
    body = written(http_error(503, "this gateway has too many connections; try again").model_dump())
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: {RETRY_AFTER}\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


TOO_MANY: Final = _too_many()
"""The answer to a connection beyond the limit."""


def bounds_of(settings: GatewaySettings) -> ConnectionBounds:
    """Return the connection limits of a gateway with these settings."""
    return ConnectionBounds(settings.max_connections, HEAD_TIMEOUT, READ_TIMEOUT, max_head=MAX_HEAD, refusal=TOO_MANY)


class HttpServer:
    """Serves HTTP requests from ``open`` until ``close``."""

    def __init__(
        self,
        app: ASGIApp,
        settings: GatewaySettings,
        *,
        bounds: ConnectionBounds | None = None,
        parser: Parser | None = None,
    ) -> None:
        bounds = bounds or bounds_of(settings)
        self._settings = settings
        tls = settings.tls_cert
        self._server = SignalFreeServer(
            uvicorn.Config(
                app,
                interface="asgi3",
                loop="none",
                http=bounded(bounds, parser or fastest_parser()),
                log_level="error",  # a request that is none would be a line of the log each
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                h11_max_incomplete_event_size=bounds.max_head,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=CLOSE_TIMEOUT,
                ssl_certfile=str(tls) if tls else None,
                ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> int:
        """Begin to listen. Return the port.

        Raises:
            CannotListen: the address is in use or not of this machine, or the certificate cannot be used.
        """
        if problem := certificate_problem(self._settings):
            raise CannotListen(": ".join(problem))
        host, port = self._settings.listens_on, self._settings.port
        try:
            self._server.config.load()
            listening = listen(host, port)
        except OSError as error:  # also ssl.SSLError
            raise CannotListen(f"gateway: cannot listen on {host} port {port}: {error.strerror or error}") from error
        chosen = int(listening.getsockname()[1])
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]), name="gateway-http")
        log.info("gateway.listening", host=host, port=chosen, tls=self._settings.tls_cert is not None)
        return chosen

    async def close(self) -> None:
        """Close every connection and the port, within a bounded time."""
        if self._serving is None:
            return
        self._server.should_exit = True
        _, late = await asyncio.wait({self._serving}, timeout=3 * CLOSE_TIMEOUT)
        for task in late:
            task.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
