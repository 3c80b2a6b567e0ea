"""SWAIG functions as tool calls: ``/signalwire/swaig`` and ``/signalwire/swaig/<service>``.

Source: SignalWire's documentation of the SWAIG webhook (``function``, ``argument.parsed``, ``call_id``) and of the
request for signatures (``action: get_signature``). The answer is ``{"response": text}``. If a tool failed or is late,
it contains a sentence for the agent to say, because the platform reads nothing else.
"""

import time
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

import structlog
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from consumer.client import SessionClient
from consumer.gateway import speech
from consumer.gateway.access import basic_credentials
from consumer.gateway.exchange import (
    addressed,
    answer,
    body_of,
    check_charset,
    header,
    path_parameter,
    read_object,
    told,
)
from consumer.gateway.known_services import KnownServices
from consumer.gateway.problems import Refused
from consumer.gateway.senders import SIGNALWIRE, Sender, Senders
from consumer.observability.log_limiter import LogLimiter
from consumer.settings.gateway_settings import GatewaySettings
from consumer.telephony import Translated, translate
from schemas.base import Json
from schemas.calls import CallKind
from schemas.errors import InvalidMessage, SessionsError, StartTimeout, ToolNotFound
from schemas.ids import CallId, escape_call_id
from schemas.mcp import Tool

log = structlog.get_logger(__name__)

PREFIX: Final = "mcp_"
"""The prefix of function names in SignalWire's skill: ``mcp_<service>_<tool>``."""

LEAST_TIMEOUT: Final = 0.1
"""How long (s) a tool call may take at least, where finding its service took as long as the whole call may."""

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
        self._left_out = LogLimiter()

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
        check_charset(request)
        payload = read_object(body)
        service = path_parameter(request, "service") if "service" in request.path_params else None
        if payload.get("action") == "get_signature" and "function" not in payload:
            sender.check("gateway", service=service)
            return answer(await self._signatures(payload, service, _web_hook_url(request, sender), sender))
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
        until = time.monotonic() + self._settings.call_timeout
        try:
            arguments = _arguments(payload)
            about.service, about.tool = await self._find(function, service, sender)
            sender.check("gateway", call_id=call_id, service=about.service)
            result = await self._client.call_tool(
                call_id,
                about.tool,
                arguments,
                service_name=about.service,
                timeout=max(until - time.monotonic(), LEAST_TIMEOUT),
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
        services = await self._reached(service, sender)
        prefixed = [(name, f"{before}{name}_") for name in services for before in (PREFIX, "")]
        named = [
            (name, function.removeprefix(one)) for name, one in prefixed if function.startswith(one) and function != one
        ]
        found, possible = await self._holders(named)
        if found:
            return found[0]
        if service or len(services) == 1:
            return possible[0] if possible else (services[0], function)
        found, silent = await self._holders([(name, function) for name in services])
        if len(found) == 1:
            return found[0]
        if possible and not found:
            return possible[0]
        if silent and not found:
            unlisted = ", ".join(name for name, _ in silent)
            raise StartTimeout(f"function {function!r}: no service has it, but these cannot be listed now: {unlisted}")
        problem = f"several services have it: {', '.join(name for name, _ in found)}" if found else "no service has it"
        raise ToolNotFound(
            f"function {function!r}: {problem}; call it <service>_<tool>, or use /signalwire/swaig/<service>"
        )

    async def _reached(self, service: str | None, sender: Sender) -> list[str]:
        if service:
            return [service]
        return [name for name in await self._catalogue.services() if sender.reaches(name)]

    async def _holders(self, meant: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return those pairs of service and tool that exist, and those whose service cannot be listed.

        If some are known, no other service is waited for.
        """
        known = [(name, tool) for name, tool in meant if _has(self._catalogue.known_tools(name), tool)]
        if known or not meant:
            return known, []
        listed, unlisted = await self._listed(dict.fromkeys(name for name, _ in meant))
        found = [(name, tool) for name, tool in meant if _has(listed.get(name, []), tool)]
        return found, [(name, tool) for name, tool in meant if name in unlisted]

    async def _listed(self, services: Iterable[str]) -> tuple[dict[str, list[Tool]], dict[str, SessionsError]]:
        """Return the tools of those services that can be listed, and the errors of the others."""
        listed: dict[str, list[Tool]] = {}
        unlisted: dict[str, SessionsError] = {}
        for name, told_of in (await self._catalogue.tools_of(services)).items():
            if not isinstance(told_of, SessionsError):
                listed[name] = told_of
                continue
            unlisted[name] = told_of
            if (unsaid := self._left_out.due(name)) is not None:
                log.warning(
                    "swaig.left_out", service=name, code=told_of.code.value, error=told_of.message, unsaid=unsaid
                )
        return listed, unlisted

    async def _signatures(self, payload: Json, service: str | None, url: str, sender: Sender) -> list[Json]:
        wanted = payload.get("functions")
        names = [name for name in wanted if isinstance(name, str)] if isinstance(wanted, list) else []
        services = await self._reached(service, sender)
        several = len(services) > 1
        if service:
            listed = {service: await self._catalogue.tools(service)}
        else:
            listed, unlisted = await self._listed(services)
            if unlisted and not listed:
                raise next(iter(unlisted.values())).with_traceback(None)
        found: list[Json] = []
        known: set[str] = set()
        for name, tools in listed.items():
            for tool in tools:
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


def _has(tools: Iterable[Tool], name: str) -> bool:
    return any(tool.name == name for tool in tools)


def _web_hook_url(request: Request, sender: Sender) -> str:
    """Return the URL for the functions: this one, with the credentials of its sender, as SignalWire's SDK writes it.

    If this request is signed, theirs will be signed too, and need no credentials.
    """
    url = addressed(request).url
    given = basic_credentials(header(request, "authorization") or "")
    if given is None or sender is SIGNALWIRE:
        return url
    scheme, _, rest = url.partition("://")
    user, password = (quote(part, safe="") for part in given)
    return f"{scheme}://{user}:{password}@{rest}"


def _arguments(payload: Json) -> Json:
    """Return the model's arguments. ``argument.parsed`` is a list of one object, or the object; ``raw`` is its text.

    Raises:
        InvalidMessage: the arguments are no object.
    """
    argument = payload.get("argument")
    if not argument:
        return {}
    parsed, raw = (argument.get("parsed"), argument.get("raw")) if isinstance(argument, dict) else (argument, None)
    first = parsed[0] if isinstance(parsed, list) and parsed else parsed
    if isinstance(first, dict):
        return first
    if not first and not raw:
        return {}
    try:
        read = from_json(raw) if isinstance(raw, str) else raw
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise InvalidMessage("argument: neither parsed nor raw is an object")
    return read


def _conversation(payload: Json) -> CallId:
    """Return the id of a conversation that is not a call, but a chat."""
    given = payload.get("call_id")
    if not isinstance(given, str) or not given:
        raise Refused(400, "a SWAIG request must have the call's id in call_id")
    return escape_call_id(given)
