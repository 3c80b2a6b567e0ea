"""The gateway as an ASGI application: routes, and in front of them what holds for every request.

In front stands, in this order: how the request was addressed, whether ``Host`` and ``Origin`` fit, whether there is
room for it. Behind, every answer gets the security headers, one log line and its metrics. Nothing is answered with 500
but a defect of ours.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumer.gateway.access import Doorkeeper
from consumer.gateway.exchange import Told, error_answer, told
from consumer.gateway.mcp.rpc_messages import refusal
from consumer.gateway.origins import RequestOrigins
from consumer.gateway.problems import Refused
from consumer.gateway.rate_limits import RequestsInFlight
from consumer.gateway.statuses import RETRY_AFTER, answer_of, http_error
from consumer.observability import metrics, tracing
from schemas.errors import SessionsError

log = structlog.get_logger(__name__)

SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
STRICT_TRANSPORT: Final = "max-age=31536000; includeSubDomains"
MOST_DRAINED: Final = 32 << 20
DRAIN_TIMEOUT: Final = 5.0
"""How many bytes, and how long (s), are read of a request that is refused."""

MCP_PATH: Final = "/mcp"
"""What the addresses end in whose clients read JSON-RPC and nothing else."""

PROBES: Final = frozenset({"/livez", "/readyz", "/health"})
"""Asked by platforms, under whatever name; they are answered while the gateway leaves, and not counted."""


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    told(request).code = error.code
    if error.bare:
        return Response(status_code=error.status, headers=error.headers)
    if request.scope["path"].endswith(MCP_PATH):
        return refusal(error.status, error.sentence, error.code, error.headers)
    if error.status == 401:
        return PlainTextResponse(error.sentence, 401, error.headers)
    body = http_error(error.status, error.sentence).model_copy(update={"code": error.code})
    return error_answer(error.status, body, error.headers)


def _not_served(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = {
        404: "there is nothing at this address",
        405: f"{request.method} is not taken here",
    }.get(error.status_code, str(error.detail))
    body = http_error(error.status_code, sentence)
    told(request).code = body.code
    return error_answer(error.status_code, body, dict(error.headers or {}))


def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, SessionsError)
    status, body = answer_of(error)
    told(request).code = body.code
    return error_answer(status, body, {"Retry-After": str(RETRY_AFTER)} if status == 503 else None)


def _defect(request: Request, _: Exception) -> Response:
    told(request).code = "INTERNAL"
    return error_answer(500, http_error(500, "this request met a defect of the gateway; its log tells more"))


def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


def application(
    routes: Sequence[Route], *, origins: RequestOrigins, doorkeeper: Doorkeeper, in_flight: RequestsInFlight
) -> ASGIApp:
    """The application with these routes."""
    app = Starlette(
        routes=list(routes),
        exception_handlers={
            Refused: _refused,
            HTTPException: _not_served,
            SessionsError: _failed,
            ClientDisconnect: _gone,
            Exception: _defect,
        },
    )
    app.router.redirect_slashes = False
    return _Front(
        app,
        {_key(route.endpoint, route.param_convertors): route.path for route in routes},
        origins,
        doorkeeper,
        in_flight,
    )


_Key = tuple[Callable[..., Any] | None, frozenset[str]]
"""What tells routes apart: several have the same endpoint, and differ in what their paths name."""


def _key(endpoint: Callable[..., Any] | None, parameters: Iterable[str]) -> _Key:
    return endpoint, frozenset(parameters)


class _Front:
    def __init__(
        self,
        app: Starlette,
        routes: Mapping[_Key, str],
        origins: RequestOrigins,
        doorkeeper: Doorkeeper,
        in_flight: RequestsInFlight,
    ) -> None:
        self._app = app
        self._routes = routes
        self._origins = origins
        self._doorkeeper = doorkeeper
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # neither lifespan nor WebSocket is spoken here
        asked = _ReceivedBody(receive)
        answering = _Answering(send, asked, secure=scope["scheme"] == "https")
        about = Told()
        headers = Headers(scope=scope)
        peer = scope["client"][0] if scope.get("client") else None
        # Ids may have a slash in them: routes look at the path as it came, and undo the encoding of each part.
        path = scope.get("raw_path", scope["path"].encode()).partition(b"?")[0].decode("ascii", "replace")
        query = scope["query_string"].decode("latin-1")
        scope = {
            **scope,
            "path": path,
            "told": about,
            "doorkeeper": self._doorkeeper,
            "addressed": self._origins.addressed(peer, scope["scheme"], f"{path}?{query}" if query else path, headers),
        }
        began = time.monotonic()
        with tracing.serving(scope["method"], headers) as span:
            try:
                if path in PROBES:
                    await self._app(scope, asked.receive, answering.send)
                else:
                    self._origins.check(headers, peer)
                    with self._in_flight.one() as scope["release"]:
                        await self._app(scope, asked.receive, answering.send)
            except Refused as error:  # by the front itself; those of endpoints are answered by the application
                await _refused(Request(scope), error)(scope, asked.receive, answering.send)
            except Exception as error:  # in most cases answered by the application already
                log.exception("http.defect", method=scope["method"], path=path[:200])
                if not answering.status:
                    await _defect(Request(scope), error)(scope, asked.receive, answering.send)
            about.route = self._routes.get(_key(scope.get("endpoint"), scope.get("path_params", ())), metrics.OTHER)
            tracing.served(span, about.route, answering.status)
        _tell(scope["method"], about, answering.status, time.monotonic() - began)


class _ReceivedBody:
    """What is received of a request.

    A refused request is read to its end, within bounds, before it is answered: who still sends when the connection is
    closed never sees the answer, and SignalWire's agents ask three times then.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read what is left."""
        left = MOST_DRAINED
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while not self._ended and left > 0:
                    left -= len((await self.receive()).get("body", b""))


class _Answering:
    """Sends an answer with the security headers, and remembers its status."""

    def __init__(self, send: Send, asked: _ReceivedBody, *, secure: bool) -> None:
        self._send = send
        self._asked = asked
        self._secure = secure
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status >= 400:
                await self._asked.drain()
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY.items():
                headers.setdefault(name, value)
            if self._secure:
                headers["Strict-Transport-Security"] = STRICT_TRANSPORT
        await self._send(message)


def _tell(method: str, about: Told, status: int, took: float) -> None:
    metrics.of(metrics.HTTP_REQUESTS, about.route, str(status)).inc()
    if about.timed:
        metrics.of(metrics.HTTP_REQUEST, about.route).observe(took)
    level = "debug" if about.route in PROBES else "warning" if status >= 500 else "info"
    said: dict[str, Any] = {
        "call_id": about.call_id,
        "service": about.service,
        "tool": about.tool,
        "code": about.code,
        "by": about.holder,
        **about.more,
    }
    getattr(log, level)(
        "http.request",
        method=method,
        route=about.route,
        status=status,
        ms=round(took * 1000, 1),
        **{name: value for name, value in said.items() if value is not None},
    )
