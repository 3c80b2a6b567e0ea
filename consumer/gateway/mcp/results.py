"""Translates results and errors of workers into MCP. Pure.

Results are handed on as the session's server wrote them. An error of a tool call that the model should mention is a
result with ``isError`` and a sentence. Every other error is one of JSON-RPC, with the code in ``data``.
"""

from collections.abc import Iterable
from typing import Any, Final

from consumer import __version__
from consumer.gateway import speech
from consumer.gateway.mcp.protocol import CACHEABLE, SERVER_INFO, Era
from consumer.gateway.mcp.rpc_messages import INTERNAL_ERROR, INVALID_PARAMS, REFUSED, RpcError
from consumer.gateway.statuses import RETRY_AFTER, without_output
from schemas.base import Json
from schemas.errors import ClientError, ErrorCode, InvalidArgument, RequestTooLarge, SessionsError
from schemas.mcp import Tool
from schemas.replies import ServerDescription

RESTORED: Final = "mcp-sessions/restored"
"""The key in ``_meta`` that is true in the first answer of a session that replaces a lost one without its memory."""

CODE: Final = "mcp-sessions/code"
"""The key in ``_meta`` with the error's code, in a result with ``isError`` that the server did not write."""

_OURS: Final = frozenset({"session_id", "text", "restored"})

SPOKEN: Final = frozenset(
    {
        ErrorCode.TOOL_TIMEOUT,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.OUTCOME_UNKNOWN,
        ErrorCode.SESSION_DIED,
        ErrorCode.START_FAILED,
        ErrorCode.START_TIMEOUT,
        ErrorCode.SESSION_LIMIT,
        ErrorCode.SERVICE_SESSION_LIMIT,
        ErrorCode.CAPACITY,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.INTERNAL,
    }
)
"""The errors of a tool call that become results for the model: too late, no room, the server lost."""


def listed(tools: Iterable[Tool]) -> Json:
    """Return the result of ``tools/list``."""
    return {"tools": [tool.model_dump(by_alias=True, exclude_unset=True) for tool in tools]}


def tool_result(reply: Json) -> Json:
    """Return MCP's ``CallToolResult`` as the server wrote it, from a worker's reply."""
    result = {name: value for name, value in reply.items() if name not in _OURS}
    if result.get("resultType") == "input_required":
        return {name: value for name, value in result.items() if name != "content"}
    if reply.get("restored"):
        result["_meta"] = {**_meta(result), RESTORED: True}
    return result


def server_info(described: ServerDescription) -> Json:
    """Return name and version of a server, or else those of its service."""
    own = described.server_info or {}
    return own if isinstance(own.get("name"), str) else {"name": described.service_name, "version": __version__}


def of_era(result: Json, era: Era, method: str, server: Json) -> Json:
    """Return a result with the fields that its era requires."""
    if era == "handshake":
        return {name: value for name, value in result.items() if name != "resultType"}
    whole = {"resultType": "complete", **result}
    if method in CACHEABLE and whole["resultType"] == "complete":
        whole = {"ttlMs": 0, "cacheScope": "private", **whole}
    return {**whole, "_meta": {SERVER_INFO: server, **_meta(result)}}


def told(error: SessionsError) -> Json:
    """Return an error of a tool call as a result for the model.

    Raises:
        RpcError: the model should not mention it.
    """
    unsure = isinstance(error, ClientError) and error.executed is None
    if error.code not in SPOKEN and not unsure:
        raise in_rpc(error) from error
    content = [{"type": "text", "text": speech.sentence(error)}]
    return {"content": content, "isError": True, "_meta": {CODE: error.code.value}}


def in_rpc(error: SessionsError) -> RpcError:
    """Return an error of a worker or a client as a JSON-RPC error. A server's own error stays unchanged."""
    data: Json = {"code": error.code.value, "retryable": error.retryable}
    if isinstance(error, ClientError):
        return _of_client(error, data)
    match error.code:
        case ErrorCode.MCP_ERROR:
            code, own = error.details.get("code"), error.details.get("data")
            if isinstance(code, int) and not isinstance(code, bool):
                return RpcError(code, str(error.details.get("message", error.message)), own)
            return RpcError(INTERNAL_ERROR, error.message, data)
        case ErrorCode.SESSION_NOT_FOUND | ErrorCode.SERVICE_NOT_FOUND | ErrorCode.SERVICE_DISABLED:
            return RpcError(REFUSED, error.message, data, status=404)
        case ErrorCode.TOOL_NOT_FOUND | ErrorCode.INVALID_MESSAGE:
            return RpcError(INVALID_PARAMS, error.message, data)
        case _:
            return RpcError(INTERNAL_ERROR, without_output(error)[0], data)


def _of_client(error: ClientError, data: Json) -> RpcError:
    if isinstance(error, RequestTooLarge):
        return RpcError(REFUSED, error.message, data, status=413)
    if isinstance(error, InvalidArgument):
        return RpcError(INVALID_PARAMS, error.message, data)
    if error.executed is False:
        headers = {"Retry-After": str(RETRY_AFTER)}
        return RpcError(REFUSED, error.message, data, status=503, headers=headers)
    return RpcError(INTERNAL_ERROR, error.message, data)


def _meta(result: Json) -> dict[str, Any]:
    meta = result.get("_meta")
    return meta if isinstance(meta, dict) else {}
