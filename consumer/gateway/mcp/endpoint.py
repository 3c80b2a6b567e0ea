"""``POST /<service>/mcp``, ``/calls/<call>/<service>/mcp`` and ``/calls/<call>/mcp``: one message of MCP each.

Answers are JSON. If the client accepts a stream of server-sent events and there are messages before the answer, they
are a stream. ``GET`` and ``DELETE`` are answered with 405, because there is no stream beside requests, and nothing to
delete.
"""

import asyncio
import hashlib
import secrets
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from consumer.client import SessionClient
from consumer.gateway.exchange import body_of, check_json, told
from consumer.gateway.known_services import KnownServices
from consumer.gateway.mcp import protocol, results, rpc_messages
from consumer.gateway.mcp.call_finder import Calls, Meant
from consumer.gateway.mcp.changes import SessionChanges
from consumer.gateway.mcp.client_request import ClientRequest
from consumer.gateway.mcp.methods import Methods
from consumer.gateway.mcp.protocol import Era
from consumer.gateway.mcp.rpc_messages import ClientAnswer, Notification, RpcError, RpcRequest
from consumer.gateway.mcp.sealing import McpSession, Seal
from consumer.gateway.mcp.stream import STREAM_TYPE, Answered, Answering, Hearing
from consumer.gateway.mcp.subscription_streams import SubscriptionStreams
from consumer.gateway.problems import Refused
from consumer.settings.gateway_settings import GatewaySettings
from schemas.errors import SessionsError

RETURN: Final = 2.0
"""How long (s) a client of the era with ``initialize`` may take to repeat a tool call whose connection broke."""


class Mcp:
    """Takes the messages of MCP clients."""

    def __init__(
        self,
        client: SessionClient,
        settings: GatewaySettings,
        catalogue: KnownServices,
        seal: Seal,
        changes: SessionChanges,
    ) -> None:
        self._settings = settings
        self._seal = seal
        self._calls = Calls(client, catalogue, settings, seal)
        subscriptions = SubscriptionStreams(client, catalogue, settings, changes)
        self._methods = Methods(client, catalogue, settings, seal, subscriptions)

    def routes(self) -> list[Route]:
        """Return the routes of this endpoint."""
        return [
            Route("/calls/{call}/mcp", self.only_service_of_a_call, methods=["POST"]),
            Route("/calls/{call}/{service}/mcp", self.service_of_a_call, methods=["POST"]),
            Route("/{service}/mcp", self.service, methods=["POST"]),
        ]

    async def service(self, request: Request) -> Response:
        """Take a message for a service, whose call is named elsewhere."""
        return await self._take(request)

    async def service_of_a_call(self, request: Request) -> Response:
        """Take a message for a service of a call."""
        return await self._take(request)

    async def only_service_of_a_call(self, request: Request) -> Response:
        """Take a message for the only service of a call."""
        return await self._take(request)

    async def _take(self, request: Request) -> Response:
        request_id: rpc_messages.RequestId = None
        try:
            meant = await self._calls.meant(request)
            takes_stream = _takes(request)
            message = rpc_messages.read(await self._body(request))
            if isinstance(message, RpcRequest):
                request_id = message.id
            era = protocol.era_of(request.headers, message)
            match message:
                case RpcRequest():
                    return self._answering(request, message, era, meant, Hearing(streams=takes_stream))
                case Notification():
                    if era == "stateless":
                        protocol.check_version(request.headers)
                    elif message.method == "notifications/cancelled":
                        await self._cancel(message, meant)
                case ClientAnswer():
                    await self._methods.take_answer(message, meant.grant)
            return Response(status_code=202)
        except Refused as error:
            told(request).code = error.code
            return rpc_messages.refusal(error.status, error.sentence, error.code, error.headers, request_id)
        except SessionsError as error:
            told(request).code = error.code.value
            return _error(request_id, results.in_rpc(error))
        except RpcError as error:
            return _error(request_id, error)

    async def _cancel(self, message: Notification, meant: Meant) -> None:
        request_id = message.params.get("requestId")
        if meant.session is not None and meant.call_id is not None and isinstance(request_id, int | str):
            await self._methods.cancel(meant.call_id, _key(request_id, meant.session))

    async def _body(self, request: Request) -> bytes:
        check_json(request)
        return await body_of(request, self._settings.max_body)

    def _answering(self, request: Request, call: RpcRequest, era: Era, meant: Meant, hearing: Hearing) -> Response:
        about = told(request)
        about.more["mcp_method"] = call.method
        if call.method == "tools/call":
            about.tool = str(call.params.get("name"))[:200]
        if era == "stateless":
            can = protocol.check_stateless(request.headers, call)
        else:
            can = meant.session.capabilities if meant.session is not None else {}
        # An id of JSON-RPC is one within its MCP session only.
        session = meant.session if era == "handshake" else None
        key = _key(call.id, session) if session is not None else secrets.token_hex(16)
        asked = ClientRequest(call, era, meant.service, meant.call_id, can, key, request, hearing)

        async def answer() -> Answered:
            try:
                result = await self._methods.answer(asked)
            except RpcError as error:
                about.code = str(error.data["code"]) if isinstance(error.data, dict) and "code" in error.data else None
                about.code = about.code or str(error.code)
                return Answered(rpc_messages.error_of(call.id, error), protocol.status_of(error, era), error.headers)
            headers = {}
            if call.method == "initialize":
                version = str(result["protocolVersion"])
                made = McpSession.new(meant.call_id, meant.service, version, protocol.capabilities_of(call))
                headers["Mcp-Session-Id"] = self._seal.close(made)
            return Answered(rpc_messages.result_of(call.id, result), headers=headers)

        async def left() -> None:
            if meant.call_id is None:
                return
            if session is not None:
                # The connection may have broken by accident, and the client may ask the same of another replica.
                await asyncio.sleep(RETURN)
            await self._methods.cancel(meant.call_id, key, leaves=session is not None)

        return Answering(answer, hearing, left if call.method == "tools/call" else None)


def _error(request_id: rpc_messages.RequestId, error: RpcError) -> Response:
    return Response(rpc_messages.error_of(request_id, error), error.status, error.headers, "application/json")


def _takes(request: Request) -> bool:
    """Return whether the client accepts a stream.

    Raises:
        Refused: 406, it accepts neither a stream nor JSON.
    """
    accept = request.headers.get("accept", "*/*").lower()
    kinds = {part.partition(";")[0].strip() for part in accept.split(",")}
    streams = STREAM_TYPE in kinds
    if streams or kinds & {"application/json", "application/*", "*/*", ""}:
        return streams
    raise Refused(406, "the Accept header must allow application/json or text/event-stream")


def _key(request_id: int | str, session: McpSession) -> str:
    """Return the key of a request of an MCP session, the same on all replicas."""
    kind = "i" if isinstance(request_id, int) else "s"
    return f"{session.nonce}:{hashlib.sha256(f'{kind}{request_id}'.encode('utf-8', 'surrogatepass')).hexdigest()}"
