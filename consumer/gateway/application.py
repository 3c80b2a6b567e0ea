"""The gateway as an ASGI application: its routes, and the checks that every request passes first.

First it checks ``Host`` and ``Origin``, then whether there is room for the request. Every answer gets the security
headers, one log line and its metrics. Only a bug of this gateway is answered with 500.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
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
from consumer.gateway.routing import Table
from consumer.gateway.statuses import RETRY_AFTER, ErrorAnswer, answer_of, http_error
from consumer.observability import metrics, tracing
from schemas.errors import SessionsError

log = structlog.get_logger(__name__)

SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
"""The security headers of every answer."""

WARNING: Final = b"x-mcp-warning"
"""The header that names what was ignored in a request."""

STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
MOST_DRAINED: Final = 32 << 20
DRAIN_TIMEOUT: Final = 5.0
"""How many bytes of a refused request are still read, and for how long (s)."""

MCP_PATH: Final = "/mcp"
"""The endings of addresses whose clients read only JSON-RPC."""

PROBES: Final = frozenset({"/livez", "/readyz", "/health"})
"""The addresses of health probes. They are answered even during the shutdown, and not counted."""


def _answer_to(error: Exception, request: Request) -> Response:
    """Return the answer to a request whose endpoint has raised."""
    match error:
        case Refused():
            return _refused(error, request)
        case SessionsError():
            status, body = answer_of(error, only_reads=request.method == "GET", operator=told(request).operator)
            told(request).code = body.code
            body = _with_warnings(body, request)
            return error_answer(status, body, {"Retry-After": str(RETRY_AFTER)} if status == 503 else None)
        case ClientDisconnect():
            return Response(status_code=400)  # nobody reads it
        case _:
            told(request).code = "INTERNAL"
            log.error("http.defect", method=request.method, path=request.scope["path"][:200], exc_info=error)
            return error_answer(500, http_error(500, "internal error in the gateway; its log has the details"))


def _refused(error: Refused, request: Request) -> Response:
    told(request).code = error.code
    if error.bare:
        return Response(status_code=error.status, headers=error.headers)
    if request.scope["path"].endswith(MCP_PATH):
        return refusal(error.status, error.sentence, error.code, error.headers)
    if error.status == 401:
        return PlainTextResponse(error.sentence, 401, error.headers)
    body = http_error(error.status, error.sentence).model_copy(update={"code": error.code})
    return error_answer(error.status, _with_warnings(body, request), error.headers)


def _with_warnings(body: ErrorAnswer, request: Request) -> ErrorAnswer:
    """Add the warnings about ignored fields to an error, because they may be its cause."""
    ignored = told(request).warnings
    return body.model_copy(update={"warnings": list(ignored)}) if ignored else body


def _not_served(request: Request, status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    body = http_error(status, sentence)
    told(request).code = body.code
    return error_answer(status, body, headers)


def application(
    routes: Sequence[Route], *, origins: RequestOrigins, doorkeeper: Doorkeeper, in_flight: RequestsInFlight
) -> ASGIApp:
    """Return the application with these routes."""
    return _Front(Table(routes), origins, doorkeeper, in_flight)


class _Front:
    def __init__(
        self, table: Table, origins: RequestOrigins, doorkeeper: Doorkeeper, in_flight: RequestsInFlight
    ) -> None:
        self._table = table
        self._origins = origins
        self._doorkeeper = doorkeeper
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # neither lifespan nor WebSocket is spoken here
        began = time.monotonic()
        about = Told()
        asked = _ReceivedBody(receive)
        answering = _Answering(send, asked, about.warnings, secure=scope["scheme"] == "https")
        headers = _first_of_each(scope["headers"])
        # Ids may have a slash in them: routes look at the path as it came, and undo the encoding of each part.
        path: str = scope["raw_path"].partition(b"?")[0].decode("ascii", "replace")
        own = {
            "path": path,
            "told": about,
            "doorkeeper": self._doorkeeper,
            "origins": self._origins,
            "first_headers": headers,
        }
        request = Request({**scope, **own}, asked.receive, answering.send)
        with tracing.serving(scope["method"], headers) as span:
            try:
                if path in PROBES:
                    await self._serve(request, answering)
                else:
                    self._origins.check(headers, scope["client"][0] if scope["client"] else None)
                    with self._in_flight.one() as request.scope["release"]:
                        await self._serve(request, answering)
            except Refused as error:  # by the front itself
                await _refused(error, request)(request.scope, asked.receive, answering.send)
            tracing.served(span, about.route, answering.status)
        _tell(scope["method"], about, answering.status, time.monotonic() - began)

    async def _serve(self, request: Request, answering: "_Answering") -> None:
        """Answer a request, even if its endpoint fails to."""
        try:
            response = await self._endpoint(request)
            await response(request.scope, request.receive, answering.send)
        except Exception as error:
            if answering.status:
                log.exception("http.defect", method=request.method, path=request.scope["path"][:200])
                return
            await _answer_to(error, request)(request.scope, request.receive, answering.send)

    async def _endpoint(self, request: Request) -> Response:
        found = self._table.find(request.method, request.scope["path"])
        if found is None:
            return _not_served(request, 404, "there is no such path")
        told(request).route = found.route.path
        if not found.taken:
            allowed = {"Allow": ", ".join(sorted(found.route.methods or ()))}
            return _not_served(request, 405, f"the method {request.method} is not allowed here", allowed)
        request.scope["path_params"] = found.parameters
        response: Response = await found.route.endpoint(request)
        return response


def _first_of_each(headers: Sequence[tuple[bytes, bytes]]) -> Mapping[str, str]:
    """Return the headers by their names in lower case. Of several with one name, the first counts, as in Starlette."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}


class _ReceivedBody:
    """The body of a request, as it is received.

    A refused request is read to its end, within limits, before it is answered. A client that is still sending when the
    connection is closed never sees the answer, and SignalWire's agents would repeat the request three times.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read the rest of the body."""
        left = MOST_DRAINED
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while not self._ended and left > 0:
                    left -= len((await self.receive()).get("body", b""))


class _Answering:
    """Sends an answer with the security headers, and remembers its status."""

    def __init__(self, send: Send, asked: _ReceivedBody, warnings: Sequence[str], *, secure: bool) -> None:
        self._send = send
        self._asked = asked
        self._warnings = warnings
        self._headers = (*SECURITY, STRICT_TRANSPORT) if secure else SECURITY
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status >= 400:
                await self._asked.drain()
            warnings = [(WARNING, warning.encode("latin-1", "replace")) for warning in self._warnings]
            message = {**message, "headers": [*message["headers"], *self._headers, *warnings]}
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
        "warnings": about.warnings or None,
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
