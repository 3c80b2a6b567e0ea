"""Reads and writes JSON-RPC 2.0 as MCP uses it: one message for each request, read strictly. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import from_json
from starlette.responses import Response

from consumer.gateway.exchange import JSON_TYPE, written
from schemas.base import Json

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
REFUSED: Final = -32000
"""The code for errors that the HTTP status already describes: no credentials, too large, too many, over."""

RequestId = int | str | None


@dataclass(frozen=True, slots=True)
class RpcRequest:
    """A request, which needs an answer."""

    id: int | str
    method: str
    params: Json = field(default_factory=dict)

    @property
    def meta(self) -> Json:
        """MCP's ``_meta``; empty if there is none."""
        meta = self.params.get("_meta")
        return meta if isinstance(meta, dict) else {}


@dataclass(frozen=True, slots=True)
class Notification:
    """A message that gets no answer."""

    method: str
    params: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClientAnswer:
    """The client's answer to a question; ``result`` is None if it is an error."""

    id: int | str
    result: Json | None


class RpcError(Exception):
    """A request that is answered with a JSON-RPC error; ``status`` is HTTP's, ``data`` is for programs."""

    def __init__(
        self, code: int, message: str, data: Any = None, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.status = status
        self.headers = dict(headers or {})


def read(body: bytes) -> RpcRequest | Notification | ClientAnswer:
    """Parse a body as a JSON-RPC message.

    Raises:
        RpcError: 400, it is not JSON, it is a batch, or it is not a message of JSON-RPC 2.0.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise RpcError(PARSE_ERROR, "Parse error: the body is not JSON", status=400) from None
    if isinstance(value, list):
        raise _invalid("batches are not supported: send each message in a separate request")
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise _invalid('the body must be one message with "jsonrpc": "2.0"')
    method, params = value.get("method"), value.get("params")
    request_id = _id(value["id"]) if "id" in value else None
    if method is None and request_id is not None and ("result" in value or "error" in value):
        result = value.get("result")
        return ClientAnswer(request_id, result if isinstance(result, dict) else None)
    if not isinstance(method, str):
        raise _invalid("method must be a string")
    if params is not None and not isinstance(params, dict):
        raise _invalid("params must be an object")
    return Notification(method, params or {}) if request_id is None else RpcRequest(request_id, method, params or {})


def _id(value: object) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _invalid("id must be a string or an integer")
    return value


def _invalid(sentence: str) -> RpcError:
    return RpcError(INVALID_REQUEST, f"Invalid request: {sentence}", status=400)


def result_of(request_id: RequestId, result: Json) -> bytes:
    """Return a response with a result."""
    return written({"jsonrpc": "2.0", "id": request_id, "result": result})


def error_of(request_id: RequestId, error: RpcError) -> bytes:
    """Return a response with an error."""
    said: Json = {"code": error.code, "message": error.message}
    if error.data is not None:
        said["data"] = error.data
    return written({"jsonrpc": "2.0", "id": request_id, "error": said})


def notification(method: str, params: Json) -> bytes:
    """Return a notification to the client."""
    return written({"jsonrpc": "2.0", "method": method, "params": params})


def question(request_id: str, method: str, params: Json) -> bytes:
    """Return a request to the client."""
    return written({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def refusal(
    status: int, sentence: str, code: str, headers: Mapping[str, str], request_id: RequestId = None
) -> Response:
    """Return the answer to a request that HTTP refuses, in a form that an MCP client can read."""
    error = RpcError(REFUSED, sentence, {"code": code, "retryable": status in (429, 503)})
    return Response(error_of(request_id, error), status, dict(headers), JSON_TYPE)
