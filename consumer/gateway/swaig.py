"""SWAIG functions as tool calls: ``/signalwire/swaig`` and ``/signalwire/swaig/<service>``.

Source: SignalWire's documentation of the SWAIG webhook (``function``, ``argument.parsed``, ``call_id``) and of the
request for signatures (``action: get_signature``). The answer is ``{"response": text}``. If a tool failed or is late,
it contains a sentence for the agent to say, because the platform reads nothing else.
"""

from typing import Final

import structlog
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from consumer.client import SessionClient
from consumer.gateway import speech
from consumer.gateway.exchange import addressed, answer, body_of, path_parameter, read_object, told
from consumer.gateway.known_services import KnownServices
from consumer.gateway.problems import Refused
from consumer.gateway.senders import Sender, Senders
from consumer.settings.gateway_settings import GatewaySettings
from consumer.telephony import Translated, translate
from schemas.base import Json
from schemas.calls import CallKind
from schemas.errors import SessionsError, ToolNotFound
from schemas.ids import CallId, escape_call_id
from schemas.mcp import Tool

log = structlog.get_logger(__name__)

PREFIX: Final = "mcp_"
"""The prefix of function names in SignalWire's skill: ``mcp_<service>_<tool>``."""


MAX_SHOWN: Final = 60
MOST_SHOWN: Final = 5
"""The most characters of an unknown function's name in the log, and the most such names."""


class Swaig:
    """Answers SWAIG requests: functions, hooks, requests for signatures."""

    def __init__(
        self, client: SessionClient, settings: GatewaySettings, senders: Senders, catalogue: KnownServices
    ) -> None:
        self._client = client
        self._settings = settings
        self._senders = senders
        self._catalogue = catalogue

    def routes(self) -> list[Route]:
        """Return the routes of this endpoint."""
        return [
            Route("/signalwire/swaig", self.take, methods=["POST"]),
            Route("/signalwire/swaig/{service}", self.take, methods=["POST"]),
        ]

    async def take(self, request: Request) -> Response:
        """Run a function, take a hook, or list the functions."""
        body = await body_of(request, self._settings.max_body)
        sender = self._senders.identify(request, body)
        payload = read_object(body)
        service = path_parameter(request, "service") if "service" in request.path_params else None
        if payload.get("action") == "get_signature" and "function" not in payload:
            sender.check("gateway", service=service)
            return answer(await self._signatures(payload, service, addressed(request).url, sender))
        meant = translate(body, content_type="application/json")
        if isinstance(meant, Translated) and meant.event.kind is not CallKind.PROGRESS:
            sender.check("events", call_id=meant.event.call_id)
            told(request).call_id = meant.event.call_id
            await self._senders.publish(self._client, body, "application/json")
            return answer({"response": "OK"})
        call_id = meant.event.call_id if isinstance(meant, Translated) else _conversation(payload)
        return await self._run(request, payload, call_id, service, sender)

    async def _run(
        self, request: Request, payload: Json, call_id: CallId, service: str | None, sender: Sender
    ) -> Response:
        function = payload.get("function")
        if not isinstance(function, str) or not function:
            raise Refused(400, "a SWAIG request must name a function")
        about = told(request)
        about.call_id, about.tool = call_id, function
        try:
            about.service, about.tool = await self._find(function, service, sender)
            sender.check("gateway", call_id=call_id, service=about.service)
            result = await self._client.call_tool(
                call_id,
                about.tool,
                _arguments(payload),
                service_name=about.service,
                timeout=self._settings.call_timeout,
            )
        except SessionsError as error:
            about.code = error.code.value
            log.warning(
                "swaig.failed",
                call_id=call_id,
                service=about.service,
                tool=about.tool,
                code=about.code,
                error=error.message,
            )
            return answer({"response": speech.sentence(error)})
        return answer({"response": speech.told_by_tool(result.text) if result.is_error else result.text or "OK"})

    async def _find(self, function: str, service: str | None, sender: Sender) -> tuple[str, str]:
        """Return the service and the tool of a function.

        Raises:
            ToolNotFound: no service has it, or several have it.
        """
        services = [service] if service else [name for name in await self._catalogue.services() if sender.reaches(name)]
        for name in services:
            for prefix in (f"{PREFIX}{name}_", f"{name}_"):
                tool = function.removeprefix(prefix)
                if tool != function and await self._has(name, tool):
                    return name, tool
        if service or len(services) == 1:
            return services[0], function
        having = [name for name in services if await self._has(name, function)]
        if len(having) == 1:
            return having[0], function
        problem = f"several services have it: {', '.join(having)}" if having else "no service has it"
        raise ToolNotFound(
            f"function {function!r}: {problem}; call it <service>_<tool>, or use /signalwire/swaig/<service>"
        )

    async def _has(self, service: str, tool: str) -> bool:
        try:
            return any(one.name == tool for one in await self._catalogue.tools(service))
        except SessionsError:
            return False

    async def _signatures(self, payload: Json, service: str | None, url: str, sender: Sender) -> list[Json]:
        wanted = payload.get("functions")
        names = [name for name in wanted if isinstance(name, str)] if isinstance(wanted, list) else []
        services = [service] if service else [name for name in await self._catalogue.services() if sender.reaches(name)]
        several = len(services) > 1
        found: list[Json] = []
        known: set[str] = set()
        for name in services:
            for tool in await self._catalogue.tools(name):
                function = f"{name}_{tool.name}" if several else tool.name
                if not names or {function, tool.name, f"{PREFIX}{name}_{tool.name}"} & set(names):
                    found.append(_signature(function, tool, url))
                    known |= {function, tool.name, f"{PREFIX}{name}_{tool.name}"}
        if names and (unknown := [name[:MAX_SHOWN] for name in names if name not in known]):
            log.warning("swaig.not_found", functions=unknown[:MOST_SHOWN], services=services)
        return found


def _signature(function: str, tool: Tool, url: str) -> Json:
    schema = tool.input_schema if isinstance(tool.input_schema, dict) else {"type": "object", "properties": {}}
    return {
        "function": function,
        "description": tool.description or tool.title or tool.name,
        "parameters": schema,
        "web_hook_url": url,
    }


def _arguments(payload: Json) -> Json:
    """Return the model's arguments. ``argument.parsed`` is a list of one object, or the object; ``raw`` is its text."""
    argument = payload.get("argument")
    if not isinstance(argument, dict):
        return {}
    parsed = argument.get("parsed")
    first = parsed[0] if isinstance(parsed, list) and parsed else parsed
    if isinstance(first, dict):
        return first
    try:
        raw = from_json(str(argument.get("raw") or "{}"))
    except ValueError:
        return {}
    return raw if isinstance(raw, dict) else {}


def _conversation(payload: Json) -> CallId:
    """Return the id of a conversation that is not a call, but a chat."""
    given = payload.get("call_id")
    if not isinstance(given, str) or not given:
        raise Refused(400, "a SWAIG request must have the call's id in call_id")
    return escape_call_id(given)
