"""Serving an ASGI application with uvicorn, in the loop that runs already, without signal handlers of its own."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final, Literal

import structlog
import uvicorn
from starlette.types import ASGIApp

from consumer.observability.listening import BACKLOG, CannotListen, listen
from consumer.settings.gateway import GatewaySettings

log = structlog.get_logger(__name__)

KEEP_ALIVE: Final = 75
"""How long (s) an idle connection is kept: longer than load balancers keep theirs, which would meet a closed one."""

CLOSE_TIMEOUT: Final = 1


class _Server(uvicorn.Server):
    """Without signal handlers: whoever runs the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _http() -> Literal["httptools", "h11"]:
    """The faster parser where it is installed (``pip install 'mcp-sessions[fast]'``)."""
    try:
        import httptools  # noqa: F401, PLC0415 - an extra
    except ImportError:
        return "h11"
    return "httptools"


class Server:
    """Serves from ``open`` to ``close``."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._settings = settings
        tls = settings.tls_cert
        self._server = _Server(
            uvicorn.Config(
                app,
                loop="none",
                http=_http(),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                limit_concurrency=settings.max_connections,
                h11_max_incomplete_event_size=64 << 10,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=CLOSE_TIMEOUT,
                ssl_certfile=str(tls) if tls else None,
                ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> int:
        """Begin to listen; returns the port.

        Raises:
            CannotListen: the address is somebody else's, none of this machine's, or the certificate cannot be used.
        """
        host, port = self._settings.listens_on, self._settings.port
        try:
            self._server.config.load()
            listening = listen(host, port)
        except OSError as error:  # also ssl.SSLError
            raise CannotListen(f"gateway: cannot listen on {host} port {port}: {error}") from error
        chosen = int(listening.getsockname()[1])
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]), name="gateway-http")
        log.info("gateway.listening", host=host, port=chosen, tls=self._settings.tls_cert is not None)
        return chosen

    async def close(self) -> None:
        """Close every connection, and listen no more; bounded."""
        if self._serving is None:
            return
        self._server.should_exit = True
        _, late = await asyncio.wait({self._serving}, timeout=3 * CLOSE_TIMEOUT)
        for task in late:
            task.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
