"""``POST /calls/<call>/token``: mints a token for one call and some services."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from consumer.gateway.bodies import Minted, MintRequest
from consumer.gateway.exchange import answer, granted, json_object, knows_all, path_parameter, told
from consumer.gateway.problems import Refused
from consumer.tokens import DEFAULT_LIFETIME, MAX_LIFETIME, TokenKeys
from schemas.ids import MAX_ID_BYTES, escape_call_id

GIVEN: Final = ("mcp", "gateway")
"""The scopes that a call token may have. It reaches the sessions of its call, and cannot mint other tokens."""


class Minting:
    """Mints call tokens."""

    def __init__(self, keys: TokenKeys, max_body: int) -> None:
        self._keys = keys
        self._max_body = max_body

    def routes(self) -> list[Route]:
        """Return the route of this endpoint."""
        return [Route("/calls/{call}/token", self.mint, methods=["POST"])]

    async def mint(self, request: Request) -> Response:
        """Mint a token."""
        grant = granted(request)
        call_id = escape_call_id(path_parameter(request, "call"))
        told(request).call_id = call_id
        if not 0 < len(call_id.encode("utf-8", "surrogatepass")) <= MAX_ID_BYTES:
            raise Refused(400, f"the call's id must be 1 to {MAX_ID_BYTES} bytes long")
        grant.check("mint", call_id=call_id)
        body = await json_object(request, self._max_body, optional=True)
        knows_all(body, MintRequest)
        services = _texts(body, "services", [])
        scopes = _texts(body, "scopes", list(GIVEN))
        lifetime = body.get("lifetime", DEFAULT_LIFETIME)
        if not isinstance(lifetime, int | float) or isinstance(lifetime, bool) or not 0 < lifetime <= MAX_LIFETIME:
            raise Refused(400, f"lifetime: must be more than 0 and at most {MAX_LIFETIME:g} seconds")
        if unknown := sorted(set(scopes) - set(GIVEN)):
            raise Refused(400, f"scopes: a call token can have {' and '.join(GIVEN)}, not {', '.join(unknown)}")
        if grant.services is not None:
            for service in services:
                grant.check("mint", service=service)
            services = services or sorted(grant.services)
        if not self._keys.can_mint:
            raise Refused(
                404, "this gateway has no key to sign tokens with: set gateway.token_keys", code="NO_TOKEN_KEY"
            )
        token = self._keys.mint(call_id, services, scopes=scopes, lifetime=float(lifetime))
        said = self._keys.verify(token)
        return answer(
            Minted(token=token, call_id=call_id, services=services, scopes=scopes, expires_at=said.expires_at),
            201,
            {"Cache-Control": "no-store"},
        )


def _texts(body: dict[str, object], name: str, otherwise: list[str]) -> list[str]:
    value = body.get(name, otherwise)
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise Refused(400, f"{name}: must be a list of strings")
    return list(value)
