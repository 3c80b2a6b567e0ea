"""Messages: each with its headers, its body, and its place in the reference."""

import re
from typing import Any, Final

from consumer.asyncapi.channels import BINDING
from consumer.asyncapi.examples import example, failure_example
from consumer.asyncapi.header_schemas import HEADERS
from consumer.asyncapi.payloads import (
    CALL_EVENT,
    DEAD_LETTER,
    PLATFORM_EVENT,
    REF,
    UNKNOWN_REPLY,
    Schema,
    first_paragraph,
    message_types,
    schema_name,
)
from consumer.broker.message import MAX_BODY
from consumer.processes.service import MCPService
from consumer.settings import WorkerSettings
from schemas.event_data import EVENTS
from schemas.events import CONTENT_TYPE
from schemas.interim import INTERIM
from schemas.internal import ANSWERS, INTERNAL
from schemas.replies import REPLY_SUFFIX
from schemas.requests import REQUESTS, ToolsCall

UNTYPED = frozenset({CALL_EVENT, PLATFORM_EVENT, DEAD_LETTER})
"""Messages that are not identified by an AMQP ``type``."""

BETWEEN_WORKERS = frozenset({*(one.type for one in INTERNAL), *(one.type for one in ANSWERS)})

CORRELATION = "correlation"

MAX_ARGUMENTS: Final[int] = MCPService.model_fields["max_arguments"].default
"""The default of a service's ``max_arguments``."""

MAX_MESSAGE: Final[int] = WorkerSettings().max_message
"""The default of ``worker.max_message``."""


def tag_of(kind: str) -> str:
    """Return the tag under which the document lists a message type."""
    if kind in BETWEEN_WORKERS:
        return "internal"
    if kind in EVENTS:
        return "events"
    if kind in UNTYPED:
        return "dead_letter" if kind == DEAD_LETTER else "calls"
    return {
        "session": "sessions",
        "call": "calls",
        "sessions": "cluster",
        "services": "cluster",
        "workers": "cluster",
    }.get(kind.partition(".")[0], "tools")


def messages(schemas: dict[str, Schema]) -> dict[str, Any]:
    """Return every message by its type."""
    return {kind: _message(kind, schemas[schema_name(kind)], schemas) for kind in message_types()}


def _message(kind: str, schema: Schema, schemas: dict[str, Schema]) -> dict[str, Any]:
    family = _headers_of(kind)
    told = schema["description"]
    typed = kind not in UNTYPED
    return {
        "name": kind,
        "title": schema_name(kind),
        "summary": first_paragraph(told),
        "description": told,
        **({"contentType": CONTENT_TYPE if kind in EVENTS else "application/json"} if kind != DEAD_LETTER else {}),
        "headers": {"$ref": f"{REF}{family}"}
        if not typed
        else {
            "type": "object",
            "allOf": [{"$ref": f"{REF}{family}"}],
            "properties": {"type": _type_of(kind)},
            "required": ["type"],
        },
        **({"correlationId": {"$ref": f"#/components/correlationIds/{CORRELATION}"}} if _correlated(family) else {}),
        "payload": {"$ref": f"{REF}{schema_name(kind)}"},
        "tags": [{"name": tag_of(kind)}],
        "bindings": {
            "amqp": {**({"messageType": kind} if typed and kind != UNKNOWN_REPLY else {}), "bindingVersion": BINDING}
        },
        "examples": [
            {"name": schema_name(kind), "headers": _example_headers(kind), "payload": example(kind, schema, schemas)},
            *_failure(kind),
        ],
        **({"x-max-bytes": largest} if (largest := max_bytes(kind)) is not None else {}),
        **({"x-internal": True} if kind in BETWEEN_WORKERS else {}),
    }


def _type_of(kind: str) -> Schema:
    """Return the AMQP ``type`` of a message. A refusal has the type of the request, if that has one."""
    if kind == UNKNOWN_REPLY:
        return {"pattern": rf"{re.escape(REPLY_SUFFIX)}$", "examples": [kind]}
    return {"const": kind}


def _failure(kind: str) -> list[dict[str, Any]]:
    request = REQUESTS.get(kind.removesuffix(REPLY_SUFFIX)) if kind.endswith(REPLY_SUFFIX) else None
    if request is None:
        return []
    return [
        {
            "name": f"{schema_name(kind)}Failed",
            "headers": _example_headers(kind),
            "payload": failure_example(request),
        }
    ]


def max_bytes(kind: str) -> int | None:
    """Return the largest body (bytes) that a worker accepts by default, or sends."""
    if kind == DEAD_LETTER:
        return None
    if kind == ToolsCall.type:
        return MAX_ARGUMENTS
    return MAX_MESSAGE if kind in {CALL_EVENT, PLATFORM_EVENT, *REQUESTS} else MAX_BODY


def _example_headers(kind: str) -> dict[str, Any]:
    family = _headers_of(kind)
    return {
        **example(family, HEADERS[family], HEADERS),
        **({"type": kind} if kind not in UNTYPED else {}),
        **({"reply_to": "amq.rabbitmq.reply-to"} if family == "RequestHeaders" else {}),
        **({"correlation_id": "1"} if _correlated(family) else {}),
    }


def _headers_of(kind: str) -> str:
    if kind == DEAD_LETTER:
        return "DeadLetterHeaders"
    if kind in UNTYPED:
        return "RawHeaders"
    if kind in EVENTS:
        return "EventHeaders"
    if kind in INTERIM or kind.endswith(REPLY_SUFFIX):
        return "ReplyHeaders"
    return "InternalHeaders" if kind in BETWEEN_WORKERS else "RequestHeaders"


def _correlated(family: str) -> bool:
    return family in {"RequestHeaders", "ReplyHeaders"}
