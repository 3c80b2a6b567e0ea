"""Answers MCP methods by asking workers: about a service from the catalogue, about the rest from the call's session."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog

from consumer import __version__
from consumer.client import OnInterim, SessionClient
from consumer.gateway.access import Grant
from consumer.gateway.known_services import KnownServices
from consumer.gateway.mcp import protocol, results, rpc_messages
from consumer.gateway.mcp.call_finder import check_call
from consumer.gateway.mcp.client_request import ClientRequest
from consumer.gateway.mcp.protocol import Era
from consumer.gateway.mcp.rpc_messages import METHOD_NOT_FOUND, ClientAnswer, RpcError
from consumer.gateway.mcp.sealing import Question, Seal
from consumer.gateway.mcp.subscription_streams import SubscriptionStreams
from consumer.settings.gateway_settings import GatewaySettings
from schemas.base import Json
from schemas.errors import SessionNotFound, SessionsError
from schemas.ids import CallId, call_id_of
from schemas.interim import InputRequired, Interim, ToolsChanged, ToolsLog, ToolsProgress
from schemas.replies import ServerDescription

log = structlog.get_logger(__name__)

REPLY_GRACE: Final = 1.0
"""How long (s) after the worker's deadline to wait for its reply, which says more than a timeout here."""

Method = Callable[[ClientRequest], Awaitable[Json]]


class Methods:
    """Handles the MCP methods of the endpoint, through ``SessionClient``."""

    def __init__(
        self,
        client: SessionClient,
        catalogue: KnownServices,
        settings: GatewaySettings,
        seal: Seal,
        subscriptions: SubscriptionStreams,
    ) -> None:
        self._client = client
        self._catalogue = catalogue
        self._settings = settings
        self._seal = seal
        self._methods: dict[str, Method] = {
            "tools/list": self._tools_list,
            "tools/call": self._tools_call,
            "prompts/list": self._passed("prompts.list", "cursor"),
            "prompts/get": self._passed("prompts.get", "name", "arguments", asks=True),
            "resources/list": self._passed("resources.list", "cursor"),
            "resources/templates/list": self._passed("resources.list", "cursor", templates=True),
            "resources/read": self._passed("resources.read", "uri", asks=True),
            "completion/complete": self._passed("completion.complete", "ref", "argument", "context"),
        }
        self._of_era: dict[Era, dict[str, Method]] = {
            "handshake": {
                "initialize": self._initialize,
                "ping": self._ping,
                "logging/setLevel": self._passed("logging.level", "level"),
                "resources/subscribe": self._passed("resources.subscribe", "uri", needs=("uri",)),
                "resources/unsubscribe": self._passed("resources.unsubscribe", "uri", needs=("uri",), open="never"),
            },
            "stateless": {
                "server/discover": self._discover,
                "subscriptions/listen": subscriptions.listen,
            },
        }

    async def answer(self, asked: ClientRequest) -> Json:
        """Return the result of a request.

        Raises:
            RpcError: the request fails with this error.
        """
        method = self._methods.get(asked.call.method) or self._of_era[asked.era].get(asked.call.method)
        if method is None:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {asked.call.method}")
        try:
            result = await method(asked)
        except SessionsError as error:
            raise results.in_rpc(error) from error
        return results.of_era(result, asked.era, asked.call.method, await self._server(asked))

    async def take_answer(self, answer: ClientAnswer, grant: Grant) -> None:
        """Pass the client's answer to the session that asked the question, whichever replica passed the question on.

        Raises:
            RpcError: no such question was asked by these gateways, or it is not open any more.
            Refused: 404, the question belongs to a call that its sender may not reach.
        """
        question = self._seal.question(str(answer.id))
        if question is None:
            raise RpcError(rpc_messages.INVALID_REQUEST, "this is the answer to an unknown question", status=400)
        check_call(grant, call_id_of(question.session_id))
        body: Json = {"session_id": question.session_id, "input_id": question.input_id, **_answered(question, answer)}
        try:
            await self._client.request(
                "input.answer", body, call_id=call_id_of(question.session_id), reply_timeout=self._settings.call_timeout
            )
        except SessionsError as error:
            raise results.in_rpc(error) from error

    async def cancel(self, call_id: CallId, key: str, *, leaves: bool = False) -> None:
        """Cancel the tool call with this key, whichever replica it was requested from.

        With ``leaves``, one requester stops waiting, and the tool call goes on if another one waits for the same key.
        """
        body = {"session_id": call_id, "idempotency_key": key, "leaves": leaves or None}
        try:
            await self._client.request("tools.cancel", body, call_id=call_id, reply_timeout=self._settings.call_timeout)
        except SessionsError as error:
            log.debug("http.not_cancelled", call_id=call_id, code=error.code.value, error=error.message)

    async def _server(self, asked: ClientRequest) -> Json:
        """Return name and version of the server, for results of the stateless era."""
        if asked.era == "handshake":
            return {}
        try:
            return results.server_info(await self._catalogue.description(asked.service))
        except SessionsError:
            return {"name": asked.service, "version": __version__}

    async def _initialize(self, asked: ClientRequest) -> Json:
        return {
            "protocolVersion": protocol.negotiated(asked.call.params.get("protocolVersion")),
            **_described(found := await self._catalogue.description(asked.service), asked.era),
            "serverInfo": results.server_info(found),
        }

    async def _ping(self, _: ClientRequest) -> Json:
        return {}

    async def _discover(self, asked: ClientRequest) -> Json:
        return {
            "supportedVersions": protocol.SUPPORTED,
            **_described(await self._catalogue.description(asked.service), asked.era),
        }

    async def _tools_list(self, asked: ClientRequest) -> Json:
        own = await self._own_tools(asked) if asked.call_id is not None else None
        return own or results.listed(await self._catalogue.tools(asked.service))

    async def _own_tools(self, asked: ClientRequest) -> Json | None:
        """Return the tools of the call's session if its server announces changes of them; None without a session."""
        described = await self._catalogue.description(asked.service)
        if not protocol.offered(described, "stateless").get("tools", {}).get("listChanged"):
            return None
        call_id = asked.the_call()
        body = {"session_id": call_id, "service_name": asked.service}
        try:
            return await self._client.request(
                "tools.list", body, call_id=call_id, reply_timeout=self._settings.call_timeout
            )
        except SessionNotFound:
            return None

    async def _tools_call(self, asked: ClientRequest) -> Json:
        name, arguments = asked.text("name"), asked.object("arguments")
        call_id = asked.the_call()
        if asked.era == "stateless":
            await self._check_arguments(asked, name, arguments)
        timeout = self._settings.stream_timeout if asked.hearing.streams else self._settings.call_timeout
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
            **await self._told(asked),
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

    async def _check_arguments(self, asked: ClientRequest, name: str, arguments: Json) -> None:
        try:
            tools = await self._catalogue.tools(asked.service)
        except SessionsError:
            return  # what is wrong with the service, the call itself will say
        tool = next((one for one in tools if one.name == name), None)
        if tool is not None:
            protocol.check_arguments(tool.input_schema, arguments, asked.request.headers)

    async def _told(self, asked: ClientRequest) -> Json:
        """Return which messages of the server the client gets on the stream of a tool call."""
        if not asked.hearing.streams:
            return {}
        if asked.era == "stateless":
            return {"logs": protocol.log_level(asked.call) is not None or None}
        try:
            offered = protocol.offered(await self._catalogue.description(asked.service), asked.era)
        except SessionsError:
            return {}  # what is wrong with the service, the call itself will say
        return {"logs": "logging" in offered or None, "changes": any(offered.values()) or None}

    def _heard(self, asked: ClientRequest) -> OnInterim:
        token = asked.call.meta.get("progressToken")
        level = protocol.log_level(asked.call)
        wanted = protocol.LEVELS[protocol.LEVELS.index(level) :] if level is not None else ()

        async def heard(message: Interim) -> None:
            match message:
                case ToolsProgress():
                    said = message.model_dump(include={"progress", "total", "message"}, exclude_none=True)
                    asked.hearing.tell(
                        rpc_messages.notification("notifications/progress", {"progressToken": token, **said})
                    )
                case InputRequired():
                    question = Question(s=message.session_id, i=message.input_id, m=message.method)
                    asked.hearing.tell(
                        rpc_messages.question(self._seal.close(question), message.method, message.params)
                    )
                case ToolsLog(level=level) if asked.era == "handshake" or level in wanted:
                    said = message.model_dump(include={"level", "logger", "data"}, exclude_none=True)
                    asked.hearing.tell(rpc_messages.notification("notifications/message", said))
                case ToolsChanged():
                    asked.hearing.tell(rpc_messages.notification(*protocol.change(message.list, message.uri)))
                case _:
                    pass

        return heard

    def _passed(
        self, message_type: str, *names: str, asks: bool = False, needs: Sequence[str] = (), **fixed: Any
    ) -> Method:
        """Return a handler that forwards a method to the call's session, with these params.

        With ``asks`` it may ask back.
        """

        async def passed(asked: ClientRequest) -> Json:
            call_id = asked.the_call()
            for name in needs:
                asked.text(name)
            given = {name: asked.call.params.get(name) for name in names}
            opening = {"session_id": call_id, "service_name": asked.service, "open": self._settings.open}
            body = {**opening, **given, **fixed}
            if asks and asked.era == "stateless":
                body |= _questions(asked)
            return await self._client.request(
                message_type, body, call_id=call_id, reply_timeout=self._settings.call_timeout
            )

        return passed


def _described(found: ServerDescription, era: Era) -> Json:
    told: Json = {"capabilities": protocol.offered(found, era)}
    return told if found.instructions is None else {**told, "instructions": found.instructions}


def _questions(asked: ClientRequest) -> Json:
    """Return how the server's questions are passed on: as results if the era has these, else on the stream, if any."""
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


def _meta(meta: Json) -> Json | None:
    """Return a request's ``_meta`` for the server, without the progress token, which is this gateway's."""
    own = {key: value for key, value in meta.items() if key != "progressToken" and not protocol.is_of_envelope(key)}
    return own or None


def _answered(question: Question, answer: ClientAnswer) -> Json:
    result = answer.result
    if question.method != "elicitation/create":
        return {"action": "decline"} if result is None else {"result": result}
    action = (result or {}).get("action")
    if action not in ("accept", "decline", "cancel"):
        return {"action": "cancel"}
    content = (result or {}).get("content")
    return {"action": action, "content": content if isinstance(content, dict) else None}
