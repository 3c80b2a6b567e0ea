"""SignalWire's gateway API: ``/health``, ``/services``, ``/sessions``, so that the SDK's skill works unchanged.

Source: signalwire-sdk 3.7, ``mcp_gateway/gateway_service.py`` and ``skills/mcp_gateway/skill.py``. Paths, fields and
answers are theirs. Statuses differ where theirs is a 500: the skill repeats every 5xx three times, so here a 5xx says
that nothing was executed (``consumer.gateway.statuses``).
"""

import re
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from consumer import __version__
from consumer.client import SessionClient
from consumer.gateway.bodies import ClosedSession, Health, ListedService, ListedSession, ListedTools, ToolCallRequest
from consumer.gateway.exchange import addressed, answer, granted, header, json_object, overlooks, path_parameter, told
from consumer.gateway.problems import Refused
from consumer.gateway.rate_limits import Limited, Rates
from consumer.settings.gateway_settings import GatewaySettings
from schemas.base import Json
from schemas.errors import ErrorCode, NoReply, ServiceDisabled, ServiceNotFound, SessionNotFound
from schemas.ids import SessionIdField, call_id_of
from schemas.mcp import Tool
from schemas.replies import ToolCallResult
from schemas.sessions import SessionInfo
from schemas.text import problem_of

SESSION_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""The ids that SignalWire's gateway accepts. Only under these does this API open a session.

Ids of other platforms and of further sessions (``v3:...``, ``c-1#slow``) work only if the session is open.
"""

NO_SESSION: Final = "there is no session with this ID"
NOT_SIGNALWIRES: Final = f"{NO_SESSION}; to open one here, an ID has up to 128 letters, digits, '_', '.' and '-'"

_ANY_ID: Final = TypeAdapter(SessionIdField)

SERVICE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_TIMEOUT: Final = 3600.0


class Rest:
    """Answers SignalWire's gateway API by asking workers."""

    def __init__(self, client: SessionClient, settings: GatewaySettings, rates: Rates) -> None:
        self._client = client
        self._settings = settings
        self._rates = rates

    def routes(self) -> list[Route]:
        """Return the routes of this endpoint."""
        return [
            Route("/health", self.health, methods=["GET"]),
            Route("/services", self.services, methods=["GET"]),
            Route("/services/{service}/tools", self.tools, methods=["GET"]),
            Route("/services/{service}/call", self.call, methods=["POST"]),
            Route("/sessions", self.sessions, methods=["GET"]),
            Route("/sessions/{session_id}", self.delete, methods=["DELETE"]),
        ]

    async def health(self, request: Request) -> Response:
        """Report that the gateway runs."""
        await self._limit(request, "default")
        return answer(Health(timestamp=datetime.now(UTC).isoformat(), version=__version__))

    async def services(self, request: Request) -> Response:
        """List the enabled services."""
        await self._limit(request, "default")
        grant = granted(request)
        grant.check("gateway")
        found = (await self._client.list_services(reply_timeout=self._settings.call_timeout)).services
        return answer(
            {
                name: ListedService(command=list(service.command), description=service.description)
                for name, service in found.items()
                if service.enabled and grant.reaches(name)
            }
        )

    async def tools(self, request: Request) -> Response:
        """List the tools of a service."""
        await self._limit(request, "tools")
        service = _service(request)
        granted(request).check("gateway", service=service)
        try:
            found = await self._client.service_tools(service, reply_timeout=self._settings.call_timeout)
        except (ServiceNotFound, ServiceDisabled) as error:  # the status that SignalWire's gateway has here
            raise Refused(400, error.message, code=error.code.value) from None
        except NoReply as error:  # to list the tools, a worker starts the server
            raise NoReply(f"{error.message}: the server may still be starting") from None
        return answer(ListedTools(service=service, tools=[_as_listed(tool) for tool in found.tools]))

    async def call(self, request: Request) -> Response:
        """Call a tool on the call's session. Open the session if there is none."""
        await self._limit(request, "call")
        grant = granted(request)
        service = _service(request)
        body = await json_object(request, self._settings.max_body)
        if not body:
            raise Refused(400, "Invalid JSON: the object is empty")
        overlooks(request, body, ToolCallRequest)
        tool = _text(body, "tool")
        session_id = _session_id(_text(body, "session_id"))
        opens = SESSION_ID.fullmatch(session_id) is not None
        told(request).call_id, told(request).tool = call_id_of(session_id), tool
        grant.check("gateway", call_id=call_id_of(session_id), service=service)
        try:
            result = await self._client.call_tool(
                session_id,
                tool,
                _table(body, "arguments"),
                service_name=service,
                timeout=self._settings.call_timeout,
                idempotency_key=header(request, "idempotency-key"),
                open="alone" if opens else "never",
                session_timeout=_timeout(body),
                session_metadata=_table(body, "metadata") or None,
            )
        except SessionNotFound as error:
            if opens:
                raise
            raise SessionNotFound(NOT_SIGNALWIRES, **error.details) from None
        called = {"session_id": session_id, "service": service, "tool": tool, "result": plain(result)}
        ignored = told(request).warnings
        return answer(called | {"warnings": ignored} if ignored else called)

    async def sessions(self, request: Request) -> Response:
        """List the open sessions of all workers."""
        await self._limit(request, "default")
        grant = granted(request)
        grant.check("gateway")
        timeout = self._settings.call_timeout
        found = self._client.iter_sessions(call_id=grant.call_id, reply_timeout=timeout)
        return answer({one.session_id: _listed(one) async for one in found if grant.reaches(one.service_name)})

    async def delete(self, request: Request) -> Response:
        """Close a session; a call's id closes all sessions of the call."""
        await self._limit(request, "session_delete")
        grant = granted(request)
        session_id = _session_id(path_parameter(request, "session_id"))
        told(request).call_id = call_id_of(session_id)
        grant.check("gateway", call_id=call_id_of(session_id))
        closed = await self._client.close(session_id, reply_timeout=self._settings.call_timeout)
        if not closed.closed:
            if not SESSION_ID.fullmatch(session_id):  # the status that SignalWire's gateway has for such an id
                raise Refused(400, f"Invalid session ID: {NO_SESSION}", code=ErrorCode.SESSION_NOT_FOUND.value)
            raise SessionNotFound(f"Session {session_id} not found", session_id=session_id)
        return answer(ClosedSession(message=f"Session {session_id} closed"))

    async def _limit(self, request: Request, limited: Limited) -> None:
        if self._rates:
            await self._rates.count(limited, told(request).route, addressed(request).address)


def plain(result: ToolCallResult) -> Any:
    """Return the result as in the gateway's API: the text of the first content block, else the whole result."""
    first = result.content[0] if result.content else None
    if isinstance(first, dict) and first.get("type") == "text" and isinstance(first.get("text"), str):
        return first["text"]
    return result.model_dump(by_alias=True, exclude_unset=True, exclude={"session_id", "text", "restored"})


def _as_listed(tool: Tool) -> Json:
    return tool.model_dump(by_alias=True, exclude_unset=True)


def _listed(session: SessionInfo) -> ListedSession:
    return ListedSession.model_validate(session, from_attributes=True)


def _service(request: Request) -> str:
    service = path_parameter(request, "service")
    if not SERVICE_NAME.fullmatch(service):
        raise Refused(400, "Invalid service name: up to 64 letters, digits, - and _")
    told(request).service = service
    return service


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    if value is None or value == "":
        raise Refused(400, f"Missing {name!r} parameter")
    if not isinstance(value, str):
        raise Refused(400, f"Invalid {name!r} parameter: it must be a string")
    return value


def _session_id(given: str) -> str:
    try:
        return _ANY_ID.validate_python(given)
    except ValidationError as error:
        raise Refused(400, f"Invalid session ID: {problem_of(error.errors()[0]['msg'])}") from None


def _table(body: Json, name: str) -> Json:
    value = body.get(name, {})
    if not isinstance(value, dict):
        raise Refused(400, f"Invalid {name!r} parameter: it must be an object")
    return value


def _timeout(body: Json) -> float | None:
    if "timeout" not in body:
        return None
    value = body["timeout"]
    if not isinstance(value, int | float) or not 0 < value <= MAX_TIMEOUT:
        raise Refused(400, f"Invalid 'timeout' parameter: more than 0 and at most {MAX_TIMEOUT:g} seconds")
    return float(value)
