"""A request as the MCP methods see it: the call, its client, and the way to send interim messages."""

from dataclasses import dataclass

from starlette.requests import Request

from consumer.gateway.mcp.protocol import Era
from consumer.gateway.mcp.rpc_messages import INVALID_PARAMS, RpcError, RpcRequest
from consumer.gateway.mcp.stream import Hearing
from schemas.base import Json
from schemas.ids import CallId


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request with its client's era and capabilities, and the call and service that it names."""

    call: RpcRequest
    era: Era
    service: str
    call_id: CallId | None
    capabilities: Json
    key: str | None
    """The idempotency key of the request, the same on all replicas. A repetition joins and is not executed again."""
    request: Request
    hearing: Hearing

    def the_call(self) -> CallId:
        """Return the call that the request names.

        Raises:
            RpcError: it names none.
        """
        if self.call_id is None:
            ways = "in the path (/calls/<call>/<service>/mcp), in a header, or by a call token"
            raise RpcError(INVALID_PARAMS, f"the request does not name its call; name it {ways}", {"code": "NO_CALL"})
        return self.call_id

    def text(self, name: str) -> str:
        """Return a parameter that must be a string.

        Raises:
            RpcError: it is not.
        """
        value = self.call.params.get(name)
        if not isinstance(value, str) or not value:
            raise RpcError(INVALID_PARAMS, f"params.{name} must be a string")
        return value

    def object(self, name: str) -> Json:
        """Return a parameter that must be an object. Without it, return an empty one.

        Raises:
            RpcError: it is not.
        """
        value = self.call.params.get(name)
        if value is not None and not isinstance(value, dict):
            raise RpcError(INVALID_PARAMS, f"params.{name} must be an object")
        return value or {}
