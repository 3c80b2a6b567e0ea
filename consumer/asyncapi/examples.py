"""Makes an example of each message from its schema, with values that a reader recognises."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from consumer.asyncapi.payloads import DEAD_LETTER, PLATFORM_EVENT, REF, UNKNOWN_REPLY, Schema
from consumer.broker import dead_letter
from schemas.base import Json
from schemas.errors import ErrorCode
from schemas.replies import REPLY_SUFFIX
from schemas.requests import MayOpen, SessionCreate, ToolsCall

_VALUES: Final[Mapping[str, Any]] = {
    "action": "accept",
    "arguments": {"text": "call back"},
    "call_id": "c-1",
    "capacity": 500,
    "complete": True,
    "code": "CAPACITY",
    "created_at": "2026-01-02T03:04:05+00:00",
    "description": "Things to do",
    "direction": "inbound",
    "errors": 0,
    "from": "+15550100",
    "host": "host-1",
    "id": "8d0f0d7c-6d0b-4c3a-9f39-1c6f0c1f9a34",
    "input_id": "i-1",
    "is_alive": True,
    "last_accessed": "2026-01-02T03:04:35+00:00",
    "message": "every worker is full; try again when some sessions have ended, or add workers",
    "message_id": "8d0f0d7c-6d0b-4c3a-9f39-1c6f0c1f9a34",
    "metadata": {"tenant": "acme"},
    "name": "add_todo",
    "occurred_at": "2026-01-02T03:04:05+00:00",
    "pid": 4711,
    "reason": "CAPACITY",
    "service_name": "todo",
    "session_id": "c-1",
    "source": "custom",
    "specversion": "1.0",
    "state": "ready",
    "started_at": "2026-01-02T03:00:00+00:00",
    "text": "call back",
    "time": "2026-01-02T03:04:05+00:00",
    "time_remaining": 270.0,
    "timeout": 300.0,
    "to": "+15550199",
    "uri": "todo://list",
    "version": "0.1.0",
    "worker_id": "host-1-k3v9x2ab",
    dead_letter.DEAD_LETTERED_AT_HEADER: "2026-01-02T03:04:05+00:00",
    dead_letter.ERROR_HEADER: "this is no event of a known platform",
    dead_letter.EXCHANGE_HEADER: "mcp.calls",
    dead_letter.QUEUE_HEADER: "mcp.calls",
    dead_letter.REASON_HEADER: "unrecognised",
    dead_letter.ROUTING_KEY_HEADER: "calls",
}
"""The values of fields in examples. An optional field is shown only if it is here."""

_OF_EVENTS: Final[Mapping[str, Any]] = {"source": "/mcp-sessions/host-1-k3v9x2ab", "subject": "c-1"}
_OF_UNKNOWN: Final[Mapping[str, Any]] = {"code": "UNKNOWN_TYPE", "message": "the AMQP property 'type' is missing"}

_OF_TOOL_RESULTS: Final[Mapping[str, Any]] = {"content": [{"type": "text", "text": "call back"}]}

_NOT_FOUND: Final[Json] = {
    "code": ErrorCode.SESSION_NOT_FOUND.value,
    "message": "there is no session 'c-1'",
    "retryable": False,
    "details": {"session_id": "c-1"},
}
_NO_SERVICE: Final[Json] = {
    "code": ErrorCode.SERVICE_NOT_FOUND.value,
    "message": "there is no service 'tood'; did you mean 'todo'? configured: todo",
    "retryable": False,
    "details": {"service_name": "tood"},
}
_NO_ROOM: Final[Json] = {
    "code": ErrorCode.CAPACITY.value,
    "message": "every worker is full; try again when some sessions have ended, or add workers",
    "retryable": True,
    "details": {},
}
_INVALID: Final[Json] = {
    "code": ErrorCode.INVALID_MESSAGE.value,
    "message": "argument: is unknown; did you mean arguments?",
    "retryable": False,
    "details": {"faults": [{"field": "argument"}]},
}

_WHOLE: Final[Mapping[str, Any]] = {
    PLATFORM_EVENT: {"CallSid": "CA0123456789abcdef0123456789abcdef", "CallStatus": "ringing", "Direction": "inbound"},
    DEAD_LETTER: {"event": "nobody knows this"},
}
"""Examples of bodies without a schema."""

_MOST_DEEP: Final = 12


def example(kind: str, schema: Schema, among: Mapping[str, Schema]) -> Any:
    """Return an example body for a message type that matches the schema."""
    if kind in _WHOLE:
        return _WHOLE[kind]
    values = {**_VALUES, **_OF_EVENTS} if "specversion" in schema.get("properties", {}) else _VALUES
    values = {**values, **_OF_UNKNOWN} if kind == UNKNOWN_REPLY else values
    values = {**values, **_OF_TOOL_RESULTS} if kind == f"{ToolsCall.type}{REPLY_SUFFIX}" else values
    values = {**values, "timeout": 30.0} if kind == ToolsCall.type else values  # of the call, not of the session
    return _made(schema, among, values, "", 0)


def failure_example(request: type[BaseModel]) -> Json:
    """Return the body of an error reply, with an error that this request can get."""
    fields = request.model_fields
    if request is SessionCreate:
        error = _NO_ROOM
    elif "session_id" in fields:
        error = _NOT_FOUND | {"message": f"{_NOT_FOUND['message']}{_how_to_open(request)}"}
    else:
        error = _NO_SERVICE if "service_name" in fields and fields["service_name"].is_required() else _INVALID
    return {"ok": False, "error": error}


def _how_to_open(request: type[BaseModel]) -> str:
    if not issubclass(request, MayOpen):
        return ""
    also = " and open" if request.model_fields["open"].default == "never" else ""
    return f"; with a service_name{also} the request opens one"


def _made(schema: Schema, among: Mapping[str, Schema], values: Mapping[str, Any], name: str, depth: int) -> Any:
    match schema:
        case {"const": value}:
            return value
        case {"enum": [*options]}:
            return values[name] if values.get(name) in options else options[0]
        case {"$ref": str(ref)}:
            return _made(among[ref.removeprefix(REF)], among, values, name, depth)
        case {"properties": dict(properties)}:
            required = schema.get("required", ())
            shown = [field for field in properties if field in required or (field in values and depth < _MOST_DEEP)]
            inner = {**values, **_VALUES} if "specversion" in properties else values  # data has a source of its own
            return {
                field: _made(properties[field], among, inner if field == "data" else values, field, depth + 1)
                for field in shown
            }
        case {"allOf": [one, *_]} | {"oneOf": [one, *_]} | {"anyOf": [one, *_]}:
            return _made(one, among, values, name, depth)
    return (
        values[name] if name in values and not isinstance(values[name], dict) else _plain(schema, among, values, name)
    )


def _plain(schema: Schema, among: Mapping[str, Schema], values: Mapping[str, Any], name: str) -> Any:
    match schema:
        case {"type": "object", "additionalProperties": {"$ref": _} as item}:
            key = "c-1" if name == "sessions" else "todo"
            return {key: _made(item, among, values, "", 1)}
        case {"type": "array", "items": {"$ref": _} as item} if schema.get("maxItems") != 0:
            return [_made(item, among, values, "", 1)]
    match schema.get("type"):
        case "object":
            return values.get(name, {}) if isinstance(values.get(name, {}), dict) else {}
        case "array":
            wanted = range(schema.get("minItems", 0))
            items = schema.get("items", {})
            return [_made(items, among, values, "", 1) for _ in wanted]
        case "string":
            return "2026-01-02T03:04:05+00:00" if schema.get("format") == "date-time" else "text"
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case _:
            return None
