"""Finds the call and the service of a request, and checks that its sender may reach them."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from consumer.client import SessionClient
from consumer.gateway.access import Grant
from consumer.gateway.exchange import granted, path_parameter, told
from consumer.gateway.known_services import KnownServices
from consumer.gateway.mcp.sealing import McpSession, Seal
from consumer.gateway.problems import Refused
from consumer.settings.gateway_settings import GatewaySettings
from schemas.ids import MAX_ID_BYTES, CallId, escape_call_id

SESSION_HEADER = "mcp-session-id"


@dataclass(frozen=True, slots=True)
class Meant:
    """The target of a request: a service, and a call unless its sender has named none yet."""

    service: str
    call_id: CallId | None
    grant: Grant
    session: McpSession | None


class Calls:
    """Finds the call of a request: from the path, the call token, a header, or the MCP session, in this order."""

    def __init__(self, client: SessionClient, catalogue: KnownServices, settings: GatewaySettings, seal: Seal) -> None:
        self._client = client
        self._catalogue = catalogue
        self._call_timeout = settings.call_timeout
        self._header = settings.call_header
        self._seal = seal

    async def meant(self, request: Request) -> Meant:
        """Return the call and the service that a request addresses.

        Raises:
            Refused: 400, 401, 403, or 404 if its MCP session or its token belongs to another call.
            SessionsError: the services are not known, because no worker answers.
        """
        grant = granted(request)
        grant.check("mcp")
        session = self._session(request)
        named = self._named(request) or grant.call_id or self._in_header(request)
        call_id = named or (session.call_id if session is not None else None)
        told(request).call_id = call_id
        check_call(grant, call_id)
        service = await self._service(request, grant, call_id)
        told(request).service = service
        grant.check("mcp", service=service)
        if session is not None and (session.service != service or (named and session.call_id not in (None, named))):
            raise _unknown_session()
        return Meant(service, call_id, grant, session)

    def _session(self, request: Request) -> McpSession | None:
        text = request.headers.get(SESSION_HEADER)
        if not text:
            return None
        session = self._seal.session(text)
        if session is None:
            raise _unknown_session()
        return session

    def _named(self, request: Request) -> CallId | None:
        return _call_id(path_parameter(request, "call")) if "call" in request.path_params else None

    def _in_header(self, request: Request) -> CallId | None:
        given = request.headers.get(self._header, "").strip()
        return _call_id(given) if given else None

    async def _service(self, request: Request, grant: Grant, call_id: CallId | None) -> str:
        if "service" in request.path_params:
            return path_parameter(request, "service")
        reached: Sequence[str] = (
            sorted(grant.services) if grant.services is not None else await self._catalogue.services()
        )
        if len(reached) != 1 and call_id is not None:
            page = await self._client.list_sessions(call_id=call_id, reply_timeout=self._call_timeout)
            reached = _narrowed(reached, sorted({one.service_name for one in page.sessions.values()}))
        if len(reached) == 1:
            return reached[0]
        count = f"{len(reached)} ({', '.join(reached)})" if reached else "none"
        raise Refused(
            400, f"this address needs exactly one service, but there are {count}: use /calls/<call>/<service>/mcp"
        )


def check_call(grant: Grant, call_id: CallId | None) -> None:
    """Check that a request may reach a call.

    Raises:
        Refused: 404, whether or not such a call exists.
    """
    if call_id is not None and not grant.reaches_call(call_id):
        raise Refused(404, "the token is for another call")


def _narrowed(reached: Sequence[str], open_ones: Sequence[str]) -> Sequence[str]:
    return [one for one in open_ones if one in reached] or reached


def _call_id(given: str) -> CallId:
    call_id = escape_call_id(given)
    if not 0 < len(call_id.encode("utf-8", "surrogatepass")) <= MAX_ID_BYTES:
        raise Refused(400, f"the call's id must be 1 to {MAX_ID_BYTES} bytes long")
    return call_id


def _unknown_session() -> Refused:
    return Refused(404, "Mcp-Session-Id does not belong to this call and service; send initialize again")
