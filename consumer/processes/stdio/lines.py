"""From bytes on a pipe to JSON-RPC messages: in linear time, with bounds, and calm about nonsense.

The framing is that of MCP's stdio transport (revision 2025-11-25, basic/transports: one JSON object a line, UTF-8).
Nothing here knows processes or sessions.
"""

import json
from collections.abc import Mapping
from typing import Any

from mcp_types import ErrorData, JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse
from pydantic_core import from_json

DEFAULT_LINE_CAP = 16 * 1024 * 1024
"""Longest line in bytes that is taken from a server."""

_HEARD = frozenset({"notifications/progress", "notifications/cancelled", "notifications/tools/list_changed"})
"""Notifications that anybody here acts on; the rest is dropped before it costs a task and a validation."""


class LineTooLong(Exception):
    """A line is longer than the cap; there is no telling where the next message starts."""


class NotJsonRpc(ValueError):
    """A line that is no JSON-RPC 2.0 message."""


class LineSplitter:
    """Cuts a stream of chunks into lines, looking at every byte once."""

    def __init__(self, cap: int = DEFAULT_LINE_CAP) -> None:
        self._cap = cap
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their ends; :class:`LineTooLong` when one passes the cap."""
        head, *rest = data.split(b"\n")
        self._size += len(head)
        if self._size > self._cap:
            raise LineTooLong
        self._parts.append(head)
        if not rest:
            return []
        lines = [b"".join(self._parts), *rest[:-1]]
        self._parts = [rest[-1]]
        self._size = len(rest[-1])
        return lines


def parse(line: bytes) -> JSONRPCMessage | None:
    """The message in ``line``, or ``None`` for one that nobody here needs; :class:`NotJsonRpc` for nonsense.

    Bytes that are not UTF-8 and lone surrogates are replaced rather than refused: a caller is better served by an
    answer with a replacement character in it than by a timeout. A result is handed on as it came, unvalidated.
    """
    value = _loads(line)
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise NotJsonRpc("not a JSON-RPC 2.0 object")
    method = value.get("method")
    if isinstance(method, str):
        return _request(method, value) if "id" in value else _notification(method, value)
    if "result" in value:
        result = value["result"]
        if not isinstance(result, dict) and result is not None:
            raise NotJsonRpc("result is no object")
        return JSONRPCResponse.model_construct(jsonrpc="2.0", id=_id(value), result=result or {})
    if "error" in value:
        try:
            error = ErrorData.model_validate(value["error"])
        except ValueError as cause:
            raise NotJsonRpc("error is malformed") from cause
        return JSONRPCError(jsonrpc="2.0", id=None if value.get("id") is None else _id(value), error=error)
    raise NotJsonRpc("neither request nor response")


def _loads(line: bytes) -> Any:
    if not line.lstrip().startswith(b"{"):
        raise NotJsonRpc("not a JSON object")
    try:
        return from_json(line)
    except ValueError as cause:
        if "recursion" in str(cause):
            raise NotJsonRpc("nested too deeply") from cause
    try:
        value = json.loads(line.decode("utf-8", "replace"))
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as cause:
        raise NotJsonRpc("not JSON") from cause


def _id(value: Mapping[str, Any]) -> int | str:
    request_id = value.get("id")
    if isinstance(request_id, (int, str)) and not isinstance(request_id, bool):
        return request_id
    raise NotJsonRpc("id is neither a number nor a string")


def _params(value: Mapping[str, Any]) -> dict[str, Any] | None:
    params = value.get("params")
    if params is None or isinstance(params, dict):
        return params
    raise NotJsonRpc("params is no object")


def _request(method: str, value: Mapping[str, Any]) -> JSONRPCRequest:
    return JSONRPCRequest(jsonrpc="2.0", id=_id(value), method=method, params=_params(value))


def _notification(method: str, value: Mapping[str, Any]) -> JSONRPCNotification | None:
    params = _params(value)
    if method not in _HEARD:
        return None
    if method == "notifications/progress" and not isinstance((params or {}).get("progress"), (int, float)):
        raise NotJsonRpc("progress is no number")
    return JSONRPCNotification(jsonrpc="2.0", method=method, params=params)
