"""Reads JSON-RPC messages as MCP servers really write them.

It reads JSON-RPC 2.0 with the tolerance that hand-written servers need. An answer that names its request is never
dropped, because a caller waits for it. If it is unusable, it becomes an error that quotes the server. Nothing here
depends on a transport.
"""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from mcp_types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)
from pydantic_core import from_json, to_json

from schemas.json_values import MAX_VALUES, has_more_values
from schemas.text import decoded, replaced

Answer = JSONRPCResponse | JSONRPCError

QUOTED = 200
"""The most characters of a server's text that a message quotes."""

MAX_DEPTH = 150
"""The most levels of nesting in an error's ``data``. A reply with it is read with a limit of 200."""

_HEARD = frozenset(
    {
        "notifications/progress",
        "notifications/cancelled",
        "notifications/message",
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/subscriptions/acknowledged",
    }
)
"""The notifications that this program uses. All others are dropped before they cost a task and a validation."""

_ANSWER = frozenset({"jsonrpc", "id", "result", "error"})
_MAX_FLOAT = sys.float_info.max
_BOM = b"\xef\xbb\xbf"
_PADDING = b" \t\r\n\0\x1e"
"""Characters allowed around a message: white space, the zero that ends texts in C, the separator of RFC 7464."""

_HEAD = 4096
_TAIL = 256
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_BEGINS = re.compile(rb"\{|\[\s*[\[{\]]")
"""The beginning of an object or an array of objects. ``[INFO] sent {...}`` is a log line, and not an answer."""

_LAST_ID = re.compile(rb'[,{]\s*"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?[\d.]+)\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


TOO_LARGE: Final = "the server's response is too large to be read"
"""The beginning of the error in place of a response that is not parsed. Its ``data`` are the size and the limit."""

UNASKED_CAP = 256 * 1024
"""The most bytes of a message that is no answer. A longer one is dropped unread."""

MAX_UNASKED_VALUES = 10_000
"""The most values of a message that cannot be an answer."""

_ENDS = 4_096


class NotJsonRpc(ValueError):
    """The server's output is no JSON-RPC 2.0 message."""


class _Unreadable(NotJsonRpc):
    """The output may be a message, but cannot be read."""


class _TooLarge(_Unreadable):
    """The output may be a message, but is too large to be parsed."""

    def __init__(self, told: str, **details: int) -> None:
        super().__init__(told)
        self.details = details


def parse(data: bytes, *, longest: int | None = None, most: int = MAX_VALUES) -> JSONRPCMessage | None:
    """Return the message in ``data``; ``None`` if no code uses it. Raises :class:`NotJsonRpc` if it is none.

    An answer of more than ``longest`` bytes or ``most`` values is refused before it is parsed, because nothing else
    runs while it is.

    Bytes that are not UTF-8 and lone surrogates are replaced rather than refused: a caller is better served by an
    answer with a replacement character in it than by a timeout. A result is handed on as it came, unvalidated. An
    error may come with the id ``None``: it answers some request, and does not say which.
    """
    try:
        _check_bounds(data, longest, most)
        value = _loads(data)
    except _Unreadable as fault:
        if (request_id := _id_within(data)) is None:
            raise
        if isinstance(fault, _TooLarge):
            return too_large(request_id, str(fault), **fault.details)
        return failure(request_id, f"the server's response cannot be read ({fault}): {quoted(data)}")
    if isinstance(value, list):
        return _unwrapped(value, data)
    if not isinstance(value, dict):
        raise NotJsonRpc("not a JSON object")
    if _is_answer(value):
        return _answer(value)
    if value.get("jsonrpc") != "2.0":
        raise NotJsonRpc("not a JSON-RPC 2.0 object")
    method = value.get("method")
    if not isinstance(method, str):
        raise NotJsonRpc("neither request nor response")
    return _request(method, value) if "id" in value else _notification(method, value)


def may_be_answer(data: bytes) -> bool:
    """Whether a message may be a response, judged from its beginning and end."""
    ends = data if len(data) <= 2 * _ENDS else data[:_ENDS] + data[-_ENDS:]
    return b'"result"' in ends or b'"error"' in ends


def most_values(data: bytes) -> int:
    """Return how many JSON values a message may have."""
    return MAX_VALUES if len(data) <= MAX_UNASKED_VALUES or may_be_answer(data) else MAX_UNASKED_VALUES


def answer_to(request_id: int | str, data: bytes) -> Answer:
    """Return the response in ``data``, which can only belong to this request."""
    try:
        message = parse(data)
    except NotJsonRpc as fault:
        return failure(request_id, f"the server's response is not JSON-RPC ({fault}): {quoted(data)}")
    if isinstance(message, JSONRPCResponse | JSONRPCError):
        return message.model_copy(update={"id": request_id})
    return failure(request_id, f"the server did not answer, it sent: {quoted(data)}")


def failure(request_id: int | str | None, message: str, *, code: int = INTERNAL_ERROR, data: Any = None) -> Answer:
    """Return an error in place of an unusable response."""
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=code, message=message, data=data))


def too_large(request_id: int | str | None, told: str, **details: int) -> Answer:
    """Return an error in place of a response that is too large to be parsed; ``details`` are its size and the limit."""
    return failure(request_id, f"{TOO_LARGE}: {told}", data=details)


def quoted(said: Any) -> str:
    """Return the beginning of a server's output on one line: JSON unchanged, bytes and texts in quotation marks."""
    text = said.strip()[: 4 * QUOTED].decode("utf-8", "replace") if isinstance(said, bytes) else said
    if not isinstance(text, str):
        text = to_json(text, inf_nan_mode="constants").decode()
    elif not (isinstance(said, bytes) and text.startswith(("{", "[")) and text.isprintable()):
        shown = json.dumps(text[:QUOTED], ensure_ascii=False)
        return f'{shown[:-1]} ..."' if len(text) > QUOTED else shown
    return text if len(text) <= QUOTED else f"{text[:QUOTED]} ..."


def _check_bounds(data: bytes, longest: int | None, most: int) -> None:
    if longest is not None and len(data) > longest:
        raise _TooLarge(
            f"it has {len(data)} bytes; {longest} are read at most (max_result)", size=len(data), limit=longest
        )
    if has_more_values(data, most):
        raise _TooLarge(f"it has more than {most} JSON values", limit=most)


def _loads(data: bytes) -> Any:
    data = data.removeprefix(_BOM).strip(_PADDING)
    if not _BEGINS.match(data):
        raise NotJsonRpc("not a JSON object")
    try:
        return from_json(data)
    except ValueError as cause:
        if "recursion" in str(cause):
            raise _Unreadable("nested too deeply") from cause
    try:
        return from_json(replaced(json.dumps(json.loads(decoded(data)), ensure_ascii=False)))
    except json.JSONDecodeError as cause:
        raise _Unreadable("not JSON") from cause
    except RecursionError as cause:
        raise _Unreadable("nested too deeply") from cause
    except ValueError as cause:
        fault = "nested too deeply" if "recursion" in str(cause) else "a number has too many digits"
        raise _Unreadable(fault) from cause


def _id_within(data: bytes) -> int | str | None:
    """Return the id of an unreadable answer, if its beginning or end contains it."""
    depth, key, previous = 0, b"", b""
    for found in _TOKEN.finditer(data[:_HEAD]):
        token = found[0]
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and token == b":":
            key = previous
            if key == b'"method"':
                return None
        elif depth == 1 and previous == b":" and key == b'"id"':
            return _read_id(token)
        previous = token
    last = _LAST_ID.search(data[-_TAIL:])
    return _read_id(last[1]) if last is not None else None


def _read_id(token: bytes) -> int | str | None:
    try:
        return _id(from_json(token))
    except ValueError:
        return None


def whole(number: Any) -> int | None:
    """Return a whole number, whether written as ``1`` or as ``1.0``."""
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _id(value: Any) -> int | str | None:
    return value if isinstance(value, str) else whole(value)


# Answers.


def _is_answer(value: Mapping[str, Any]) -> bool:
    """Return whether an object is meant as an answer. Without ``jsonrpc`` it must not look like a log line."""
    if not ("result" in value or "error" in value):
        return "id" in value and "method" not in value and "jsonrpc" in value
    if "jsonrpc" in value:
        return True
    return "id" in value and (value.keys() <= _ANSWER or isinstance(value.get("result"), dict))


def _answer(value: Mapping[str, Any]) -> Answer:
    request_id, result, error = _id(value.get("id")), value.get("result"), value.get("error")
    # Both may be there, one of them empty, as in JSON-RPC 1.0.
    if error is not None and (error or result is None):
        return JSONRPCError(jsonrpc="2.0", id=request_id, error=_error(error))
    if "result" not in value:
        return failure(request_id, f"the server's response has neither a result nor an error: {quoted(value)}")
    if result is not None and not isinstance(result, dict):
        return failure(request_id, f"the server's result is not an object: {quoted(result)}")
    if request_id is None:
        return failure(None, f"the server's response has no id: {quoted(value)}")
    return JSONRPCResponse.model_construct(jsonrpc="2.0", id=request_id, result=result or {})


def _error(error: Any) -> ErrorData:
    """Return the usable parts of an error. A malformed one is quoted as a whole in ``data``."""
    if not isinstance(error, dict):
        return ErrorData(code=INTERNAL_ERROR, message=error if isinstance(error, str) and error else quoted(error))
    code, message, data = whole(error.get("code")), error.get("message"), error.get("data")
    if code is None or not isinstance(message, str):
        data = quoted(error)
    elif _deeper_than(MAX_DEPTH, data):
        data = quoted(data)
    words = message if isinstance(message, str) and message else quoted(error)
    return ErrorData(code=INTERNAL_ERROR if code is None else code, message=words, data=data)


def _deeper_than(levels: int, value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(levels - 1, one) for one in inner)


def _unwrapped(values: list[Any], data: bytes) -> Answer:
    """Return a refusal of the first answer in an array, because no batch was requested."""
    answer = next((one for one in values if isinstance(one, dict) and _is_answer(one)), None)
    if answer is None:
        raise NotJsonRpc("an array")
    return failure(_id(answer.get("id")), f"the server's response is wrapped in an array: {quoted(data)}")


# Requests and notifications.


def _params(value: Mapping[str, Any]) -> dict[str, Any] | None:
    params = value.get("params")
    if params is None or isinstance(params, dict):
        return params
    if params == []:  # an empty object, as PHP writes it
        return {}
    raise NotJsonRpc("params is not an object")


def _request(method: str, value: Mapping[str, Any]) -> JSONRPCRequest:
    request_id = _id(value["id"])
    if request_id is None:
        raise NotJsonRpc("id is neither a number nor a string")
    return JSONRPCRequest(jsonrpc="2.0", id=request_id, method=method, params=_params(value))


def _notification(method: str, value: Mapping[str, Any]) -> JSONRPCNotification | None:
    params = _params(value)
    if method not in _HEARD:
        return None
    if method == "notifications/progress":
        params = _progress(params or {})
    return JSONRPCNotification(jsonrpc="2.0", method=method, params=params)


def _progress(params: dict[str, Any]) -> dict[str, Any]:
    if not _is_finite(params.get("progress")):
        raise NotJsonRpc("progress is not a number")
    return params if _is_finite(params.get("total")) else {**params, "total": None}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and -_MAX_FLOAT <= value <= _MAX_FLOAT
