"""MCP's methods, answered by asking workers: what a service is from the catalogue, the rest from the call's session."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from starlette.datastructures import Headers

from consumer import __version__
from consumer.client import OnInterim, SessionClient
from consumer.gateway.access import Grant
from consumer.gateway.catalogue import Catalogue
from consumer.gateway.mcp import jsonrpc, protocol, results
from consumer.gateway.mcp.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND, Answer, Call, RpcError
from consumer.gateway.mcp.protocol import Era
from consumer.gateway.mcp.sealing import Question, Seal
from consumer.gateway.mcp.stream import Hearing
from consumer.settings.gateway import GatewaySettings
from schemas.base import Json
from schemas.errors import SessionsError
from schemas.ids import CallId, call_id_of
from schemas.interim import InputRequired, Interim, ToolsLog, ToolsProgress
from schemas.replies import ServerDescription

log = structlog.get_logger(__name__)

REPLY_GRACE: Final = 1.0
"""How much longer (s) than the worker's own deadline its reply is waited for: it says more than our silence."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and who asks: the era that he speaks, what he can do, and the call and service that he means."""

    call: Call
    era: Era
    service: str
    call_id: CallId | None
    capabilities: Json
    key: str | None
    """Names the request for all replicas: a repetition with the same key joins and is not executed again."""
    headers: Headers
    hearing: Hearing


class Methods:
    """Answers the methods of MCP."""

    def __init__(self, client: SessionClient, catalogue: Catalogue, settings: GatewaySettings, seal: Seal) -> None:
        self._client = client
        self._catalogue = catalogue
        self._settings = settings
        self._seal = seal
        self._methods: dict[str, Callable[[Asked], Awaitable[Json]]] = {
            "tools/list": self._tools_list,
            "tools/call": self._tools_call,
            "prompts/list": self._passed("prompts.list", "cursor"),
            "prompts/get": self._passed("prompts.get", "name", "arguments", asks=True),
            "resources/list": self._passed("resources.list", "cursor"),
            "resources/templates/list": self._passed("resources.list", "cursor", templates=True),
            "resources/read": self._passed("resources.read", "uri", asks=True),
        }
        self._of_era: dict[Era, dict[str, Callable[[Asked], Awaitable[Json]]]] = {
            "handshake": {"initialize": self._initialize, "ping": self._ping},
            "stateless": {"server/discover": self._discover},
        }

    async def answer(self, asked: Asked) -> Json:
        """The result of a request.

        Raises:
            RpcError: there is none, and this is the answer instead.
        """
        method = self._methods.get(asked.call.method) or self._of_era[asked.era].get(asked.call.method)
        if method is None:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {asked.call.method}")
        try:
            result = await method(asked)
        except SessionsError as error:
            raise results.in_rpc(error) from error
        return results.of_era(result, asked.era, asked.call.method, await self._server(asked))

    async def take_answer(self, answer: Answer, grant: Grant) -> None:
        """Hand the client's answer to a question to the session that asked it, whichever replica asked for it.

        Raises:
            RpcError: it answers no question of this gateway, or the question is over.
            Refused: 403, the question is of a call that its sender does not reach.
        """
        question = self._seal.question(str(answer.id))
        if question is None:
            raise RpcError(jsonrpc.INVALID_REQUEST, "this is the answer to no question of this server", status=400)
        grant.check("mcp", call_id=call_id_of(question.session_id))
        body: Json = {"session_id": question.session_id, "input_id": question.input_id, **_answered(question, answer)}
        try:
            await self._client.request(
                "input.answer", body, call_id=call_id_of(question.session_id), reply_timeout=self._settings.patience
            )
        except SessionsError as error:
            raise results.in_rpc(error) from error

    async def cancel(self, call_id: CallId, key: str) -> None:
        """Cancel the tool call of this name, on whichever replica it was asked for."""
        body = {"session_id": call_id, "idempotency_key": key}
        try:
            await self._client.request("tools.cancel", body, call_id=call_id, reply_timeout=self._settings.patience)
        except SessionsError as error:
            log.debug("http.not_cancelled", call_id=call_id, code=error.code.value, error=error.message)

    async def _server(self, asked: Asked) -> Json:
        """Who answers, for the results of the stateless era."""
        if asked.era == "handshake":
            return {}
        try:
            return results.server_info(await self._catalogue.description(asked.service))
        except SessionsError:
            return {"name": asked.service, "version": __version__}

    async def _initialize(self, asked: Asked) -> Json:
        return {
            "protocolVersion": protocol.negotiated(asked.call.params.get("protocolVersion")),
            **_described(found := await self._catalogue.description(asked.service)),
            "serverInfo": results.server_info(found),
        }

    async def _ping(self, _: Asked) -> Json:
        return {}

    async def _discover(self, asked: Asked) -> Json:
        return {
            "supportedVersions": protocol.SUPPORTED,
            **_described(await self._catalogue.description(asked.service)),
        }

    async def _tools_list(self, asked: Asked) -> Json:
        return results.listed(await self._catalogue.tools(asked.service))

    async def _tools_call(self, asked: Asked) -> Json:
        params = asked.call.params
        name, arguments = _text(params, "name"), _object(params, "arguments")
        call_id = _call(asked)
        if asked.era == "stateless":
            await self._check_arguments(asked, name, arguments)
        timeout = self._settings.stream_patience if asked.hearing.streams else self._settings.patience
        body = {
            "session_id": call_id,
            "service_name": asked.service,
            "open": self._settings.open,
            "name": name,
            "arguments": arguments,
            "timeout": timeout,
            "meta": _meta(asked.call.meta),
            "idempotency_key": asked.key,
            "progress": (asked.hearing.streams and "progressToken" in asked.call.meta) or None,
            "logs": (asked.hearing.streams and protocol.log_level(asked.call) is not None) or None,
            **_questions(asked),
        }
        try:
            reply = await self._client.request(
                "tools.call",
                body,
                call_id=call_id,
                reply_timeout=timeout + REPLY_GRACE,
                on_interim=self._heard(asked) if asked.hearing.streams else None,
            )
        except SessionsError as error:
            return results.told(error)
        return results.tool_result(reply)

    async def _check_arguments(self, asked: Asked, name: str, arguments: Json) -> None:
        try:
            tools = await self._catalogue.tools(asked.service)
        except SessionsError:
            return  # what is wrong with the service, the call itself will say
        tool = next((one for one in tools if one.name == name), None)
        if tool is not None:
            protocol.check_arguments(tool.input_schema, arguments, asked.headers)

    def _heard(self, asked: Asked) -> OnInterim:
        token = asked.call.meta.get("progressToken")
        level = protocol.log_level(asked.call)
        wanted = protocol.LEVELS[protocol.LEVELS.index(level) :] if level is not None else ()

        async def heard(message: Interim) -> None:
            match message:
                case ToolsProgress():
                    said = message.model_dump(include={"progress", "total", "message"}, exclude_none=True)
                    asked.hearing.tell(jsonrpc.notification("notifications/progress", {"progressToken": token, **said}))
                case InputRequired():
                    question = Question(s=message.session_id, i=message.input_id, m=message.method)
                    asked.hearing.tell(jsonrpc.question(self._seal.close(question), message.method, message.params))
                case ToolsLog(level=level) if level in wanted:
                    said = message.model_dump(include={"level", "logger", "data"}, exclude_none=True)
                    asked.hearing.tell(jsonrpc.notification("notifications/message", said))
                case _:
                    pass

        return heard

    def _passed(
        self, message_type: str, *names: str, asks: bool = False, **fixed: Any
    ) -> Callable[[Asked], Awaitable[Json]]:
        """A method that the call's session answers, with these of its params; ``asks``: it may ask back."""

        async def passed(asked: Asked) -> Json:
            call_id = _call(asked)
            given = {name: asked.call.params.get(name) for name in names}
            body = {"session_id": call_id, "service_name": asked.service, **given, **fixed}
            if asks and asked.era == "stateless":
                body |= _questions(asked)
            return await self._client.request(
                message_type, body, call_id=call_id, reply_timeout=self._settings.patience
            )

        return passed


def _described(found: ServerDescription) -> Json:
    told: Json = {"capabilities": protocol.offered(found.capabilities)}
    return told if found.instructions is None else {**told, "instructions": found.instructions}


def _questions(asked: Asked) -> Json:
    """How the server's questions come: as results where the era has it so, else on the stream, if there is one."""
    params = asked.call.params
    if asked.era == "stateless":
        return {
            "questions": "return",
            "input_responses": params.get("inputResponses"),
            "request_state": params.get("requestState"),
            "client_capabilities": asked.capabilities,
        }
    if asked.hearing.streams and asked.capabilities:
        return {"questions": True, "client_capabilities": asked.capabilities}
    return {}


def _call(asked: Asked) -> CallId:
    if asked.call_id is None:
        told = "which call is meant? name it in the path (/calls/<call>/<service>/mcp), in a header, or by a call token"
        raise RpcError(INVALID_PARAMS, told, {"code": "NO_CALL"})
    return asked.call_id


def _text(params: Json, name: str) -> str:
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise RpcError(INVALID_PARAMS, f"params.{name} must be a text")
    return value


def _object(params: Json, name: str) -> Json:
    value = params.get(name)
    if value is not None and not isinstance(value, dict):
        raise RpcError(INVALID_PARAMS, f"params.{name} must be an object")
    return value or {}


def _meta(meta: Json) -> Json | None:
    """What of a request's ``_meta`` is the server's business: not the token of a progress that goes through us."""
    own = {key: value for key, value in meta.items() if key != "progressToken" and not protocol.is_of_envelope(key)}
    return own or None


def _answered(question: Question, answer: Answer) -> Json:
    result = answer.result
    if question.method != "elicitation/create":
        return {"action": "decline"} if result is None else {"result": result}
    action = (result or {}).get("action")
    if action not in ("accept", "decline", "cancel"):
        return {"action": "cancel"}
    content = (result or {}).get("content")
    return {"action": action, "content": content if isinstance(content, dict) else None}
