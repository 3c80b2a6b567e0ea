"""Makes the OpenAPI document of the gateway from the models of its endpoints. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from consumer import __version__
from consumer.gateway.bodies import (
    Called,
    ClosedSession,
    Health,
    ListedService,
    ListedSession,
    ListedTools,
    Minted,
    MintRequest,
    Ready,
    SwaigAnswer,
    SwaigRequest,
    ToolCallRequest,
)
from consumer.gateway.statuses import ErrorAnswer
from schemas.calls import Platform

REFERENCE: Final = "#/components/schemas/{model}"
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
NONE: Final = frozenset[str]()

STATUSES: Final = {
    400: "The request is invalid.",
    401: "The credentials are missing or wrong. The body is plain text.",
    403: "The credentials do not allow this. If a signature is wrong, the response has no body.",
    404: "There is no such service, tool or session.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not JSON in UTF-8, or it is compressed.",
    422: "The server answered with a JSON-RPC error. What a tool itself reports as an error is a 200 with its text.",
    424: "There is no result, and the tool may have been executed. With `START_FAILED`, `SESSION_DIED` and "
    "`DEADLINE_EXCEEDED` it was not, but do not repeat the request at once.",
    429: "This address sent too many requests.",
    503: "Nothing was executed. Try again later.",
}
NO_SUCH_SERVICE: Final = "The request is invalid, or there is no such service."
NO_SUCH_ID: Final = (
    "The request is invalid, or the id has other characters than letters, digits, `_`, `.` and `-` and there is no "
    "such session."
)
IDEMPOTENCY_KEY: Final = "Idempotency-Key"
HEADERS: Final = {
    IDEMPOTENCY_KEY: "A text of your own for this tool call. A repeated request with the same key is not executed "
    "again: it joins the one in flight, or gets its result.",
}
WARNING: Final = "x-mcp-warning"
WARNED: Final = "What was ignored in the request: one header for each unknown field, also in `warnings` of the body."
READ: Final = (400, 401, 403, 404, 429, 503)
ASKED: Final = (*READ, 424)
WITH_BODY: Final = (*ASKED, 408, 413, 415)
RETRIED: Final = (429, 503)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    id: str
    summary: str
    tag: str
    takes: type[BaseModel] | None = None
    answers: Any = None
    """The model of the answer, a type of models, or None for an answer without a body of ours."""
    status: int = 200
    errors: tuple[int, ...] = ()
    guarded: bool = True
    media: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()
    """The headers of the request, from ``HEADERS``."""
    says: Mapping[int, str] = field(default_factory=dict)
    """The meaning of a status, if it differs from the usual one."""


def _event(method: str, path: str, summary: str) -> Operation:
    name = {"/events": "any", "/events/{platform}": "platform", "/signalwire/events": "signalwire"}[path]
    errors = (400, 401, 403, 404, 408, 413, 415, 503)
    media = (JSON, FORM) if method == "post" else ()
    return Operation(method, path, f"{method}_{name}_event", summary, "events", None, None, 204, errors, media=media)


OPERATIONS: Final = (
    Operation("get", "/health", "health", "Report that the gateway runs", "gateway", None, Health, 200, RETRIED, False),
    Operation(
        "get", "/services", "list_services", "List the enabled services", "gateway", None, dict[str, ListedService],
        200, READ,
    ),
    Operation(
        "get", "/services/{service}/tools", "list_tools", "List the tools of a service", "gateway", None, ListedTools,
        200, (*(one for one in READ if one != 404), 422), says={400: NO_SUCH_SERVICE},
    ),
    Operation(
        "post", "/services/{service}/call", "call_tool", "Call a tool; the first call opens the session", "gateway",
        ToolCallRequest, Called, 200, (*WITH_BODY, 422), headers=(IDEMPOTENCY_KEY,),
    ),
    Operation(
        "get", "/sessions", "list_sessions", "List the open sessions of all workers", "gateway", None,
        dict[str, ListedSession], 200, READ,
    ),
    Operation(
        "delete", "/sessions/{session_id}", "close_session",
        "Close a session; the id of a call closes all sessions of the call", "gateway", None, ClosedSession, 200,
        ASKED, says={400: NO_SUCH_ID},
    ),
    Operation(
        "post", "/calls/{call}/token", "mint_token", "Mint a token for one call", "tokens", MintRequest, Minted, 201,
        (400, 401, 403, 404, 408, 413, 415, 503),
    ),
    *(
        _event(method, path, summary)
        for path, summary in (
            ("/events", "Report a call event of any platform"),
            ("/events/{platform}", "Report a call event of this platform"),
            ("/signalwire/events", "Report a call event of SignalWire"),
        )
        for method in ("get", "post")
    ),
    *(
        Operation(
            "post", path, operation, "Run a SWAIG function as a tool call", "swaig", SwaigRequest, SwaigAnswer, 200,
            (400, 401, 403, 408, 413, 415, 424, 503),
        )
        for path, operation in (("/signalwire/swaig", "swaig"), ("/signalwire/swaig/{service}", "swaig_of_service"))
    ),
    Operation("get", "/livez", "live", "Report that the process runs", "probes", guarded=False, media=("text/plain",)),
    Operation(
        "get", "/readyz", "ready", "Report whether a worker can be reached", "probes", None, Ready, 200, (503,), False,
    ),
    Operation("get", "/metrics", "metrics", "Expose the metrics", "probes", errors=(401, 403), media=("text/plain",)),
)  # fmt: skip

PARAMETERS: Final[Mapping[str, dict[str, Any]]] = {
    "service": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    "session_id": {"type": "string", "description": "The session's id, percent-encoded."},
    "call": {"type": "string", "description": "The call's id, percent-encoded."},
    "platform": {"type": "string", "enum": list(get_args(Platform))},
}


def document(operations: Iterable[Operation] = OPERATIONS) -> dict[str, Any]:
    """Return the document as JSON."""
    operations = tuple(operations)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method] = _operation(one)
    _, made = models_json_schema([(model, "serialization") for model in _models(operations)], ref_template=REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mcp-sessions, HTTP gateway",
            "version": __version__,
            "description": "MCP sessions for phone calls: SignalWire's gateway API, webhooks, SWAIG functions, tokens.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://127.0.0.1:8080"}],
        "security": [{"basic": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": made["$defs"],
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The operator's token, a static token or a call token.",
                },
            },
        },
    }


def _models(operations: Iterable[Operation]) -> list[type[BaseModel]]:
    models: set[type[BaseModel]] = {ErrorAnswer, ListedService, ListedSession}
    for one in operations:
        models |= {found for found in (one.takes, one.answers) if _is_model(found)}
    return sorted(models, key=lambda model: model.__name__)


def _is_model(found: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(found, type) and issubclass(found, BaseModel)


def _operation(one: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {"operationId": one.id, "summary": one.summary, "tags": [one.tag]}
    names = re.findall(r"{(\w+)}", one.path)
    if names:
        made["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": PARAMETERS[name]} for name in names
        ]
    if one.headers:
        made.setdefault("parameters", []).extend(
            {"name": name, "in": "header", "description": HEADERS[name], "schema": {"type": "string"}}
            for name in one.headers
        )
    if not one.guarded:
        made["security"] = []
    if one.method == "post":
        schema = _schema(one.takes) if one.takes is not None else {}
        optional = one.takes is MintRequest
        made["requestBody"] = {"required": not optional, "content": {kind: {"schema": schema} for kind in one.media}}
    answer: dict[str, Any] = {"description": one.summary + "."}
    if one.answers is not None:
        answer["content"] = {JSON: {"schema": _schema(one.answers)}}
        answer |= _warned(one)
    elif one.status == 204:
        answer["description"] = "RabbitMQ has the event."
    else:
        answer["content"] = {kind: {"schema": {"type": "string"}} for kind in one.media}
    made["responses"] = {str(one.status): answer} | {str(status): _error(status, one) for status in sorted(one.errors)}
    return made


def _error(status: int, one: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {"description": one.says.get(status, STATUSES[status])}
    if one.answers is Ready:
        made["description"] = "No worker can be reached, or the gateway is shutting down."
        made["content"] = {JSON: {"schema": _schema(Ready)}}
        return made
    if status == 401:
        made["content"] = {"text/plain": {"schema": {"type": "string"}}}
        made["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    else:
        made["content"] = {JSON: {"schema": _schema(ErrorAnswer)}}
        made |= _warned(one)
    if status in RETRIED:
        made.setdefault("headers", {})["Retry-After"] = {"description": "Seconds.", "schema": {"type": "string"}}
    return made


def _warned(one: Operation) -> dict[str, Any]:
    """Return the header that names ignored fields, for operations that ignore any."""
    if one.takes is not ToolCallRequest:
        return {}
    return {"headers": {WARNING: {"description": WARNED, "schema": {"type": "string"}}}}


def _schema(model: Any) -> dict[str, Any]:
    if _is_model(model):
        return {"$ref": REFERENCE.format(model=model.__name__)}
    schema = TypeAdapter(model).json_schema(ref_template=REFERENCE, mode="serialization")
    return {name: value for name, value in schema.items() if name != "$defs"}
