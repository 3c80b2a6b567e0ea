"""AMQP properties and headers of messages.

AsyncAPI knows headers only. A property of AMQP 0-9-1 (basic class) is one with ``x-amqp-property: true``.
"""

from typing import Final

from consumer.asyncapi.payloads import Schema
from consumer.broker import dead_letter, message
from schemas import headers

DEAD_LETTER_HEADERS: dict[str, str] = {
    dead_letter.REASON_HEADER: "one word: `unrecognised` (no platform's event, or a faulty one), `invalid_message`, "
    "`unknown_type`, "
    "`too_large` (`worker.max_message`), `crash_loop` (four workers died with it), `defect` (a bug in mcp-sessions; "
    "the log has the traceback)",
    dead_letter.ERROR_HEADER: "a sentence that describes the fault",
    dead_letter.EXCHANGE_HEADER: "the exchange that it was published to",
    dead_letter.ROUTING_KEY_HEADER: "its routing key",
    dead_letter.QUEUE_HEADER: "the queue that it was consumed from",
    dead_letter.DEAD_LETTERED_AT_HEADER: "when it became a dead letter",
    dead_letter.ORIGIN_HEADER: "`worker`, if a worker had published it",
    message.CALL_HEADER: "the call, if the body of a call event names one",
}

_OPTIONAL = frozenset({dead_letter.ORIGIN_HEADER, message.CALL_HEADER})

_PLACING: dict[str, str] = {
    message.CALL_HEADER: "The call, where the routing key is the name of a queue.",
    headers.PLACEMENT: "`<placer>/<number>`: the call has just been bound to the inbox that this message goes to.",
    headers.BELIEVED: "`<placer>/<number>`: the placement that made this worker the owner, as the placer knows it.",
    headers.DISOWNED: "The placement that the returned message belongs to.",
    headers.RETURNED: "The worker that got the message and does not own the call.",
    headers.RETURNS: "How often the message has been returned.",
    headers.REFUSED: "The worker on which the call was placed, but which had no room.",
    headers.RESENT: "The message was sent through the sessions exchange a second time.",
    headers.DEATHS: "How many workers died with this message in their inbox.",
    headers.LATE: "The message was an orphan: its inbox had no consumer.",
    headers.ORPHAN_OF: "The dead worker whose inbox gave the message up.",
    headers.LOST: "The sessions of the recipe have been reported lost.",
    headers.STARTED: "When (ms since the epoch) the start was sent that the sessions of the recipe go back to.",
    headers.COMMANDED: "When (ms since the epoch) the request came that the sessions of the recipe go back to.",
    headers.RESTORED: "Which sessions of the recipe are restored: in its order, `1` for one that is, and else `0`.",
    headers.ADMISSION: "When (ms since the epoch) a start that found no room is rejected.",
    headers.DEADLINE: "When (ms since the epoch) the caller of a request stops waiting.",
}

DEADLINE_MEANS: Final = (
    "Until when its sender waits, in milliseconds since the epoch: a whole number, or its digits as text. "
    "`session.create` opens nothing after that, and a use of a session (`mcp.requests`) is not executed. These two are "
    "refused if it is neither. It is not read in any other message."
)

DEAD_LETTER_MEANS: Final = (
    "A message that a worker gave up has the `x-mcp-*` headers, and no reply address any more: its sender was "
    "answered. A message that RabbitMQ gave up, for example because it expired, has `x-death` instead. Its properties "
    "and headers are those of its publisher, with the reply address and without `expiration`, and nobody has answered "
    "it."
)


def _property(kind: str, description: str, **more: object) -> Schema:
    return {"type": kind, "description": description, "x-amqp-property": True, **more}


def _header(description: str, **more: object) -> Schema:
    return {"type": "string", "description": description, **more}


_TYPE = _property("string", "The message type.")
_ID = _property("string", "Unique; a message that is sent again keeps it.")
_CORRELATION = _property("string", "Copied to the reply.")
_TIMESTAMP = _property("integer", "When it was sent, in seconds since the epoch.")
_TRACE: dict[str, Schema] = {
    "traceparent": _header("W3C Trace Context, level 1, section 3.2, passed to the MCP server."),
    "tracestate": _header("W3C Trace Context, level 1, section 3.3."),
}


_DEATHS: Schema = {
    "type": "array",
    "description": "Written by RabbitMQ: a message that it gave up itself, and from which queue. The newest is first.",
    "items": {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "description": "`expired`, `delivery_limit`, `rejected` or `maxlen`."},
            "queue": {"type": "string", "description": "The queue that it was in."},
            "exchange": {"type": "string", "description": "The exchange that brought it to that queue."},
            "routing-keys": {"type": "array", "items": {"type": "string"}},
            "count": {"type": "integer", "description": "How often this happened to it in this queue."},
        },
        "required": ["reason", "queue"],
    },
}


def _content(content_type: str) -> Schema:
    return _property("string", "MIME type of the body.", const=content_type)


def _headers(description: str, required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": {**properties, **_TRACE},
        "required": list(required),
    }


HEADERS: dict[str, Schema] = {
    "RawHeaders": _headers(
        "An event of a telephony platform, recognised by its body.",
        content_type=_property("string", "JSON if it is missing; form-encoded bodies say so."),
        message_id=_ID,
        timestamp=_TIMESTAMP,
    ),
    "RequestHeaders": _headers(
        "A request. Without a reply address it is executed but not answered.",
        ("type",),
        type=_TYPE,
        content_type=_content(message.JSON),
        message_id=_ID,
        reply_to=_property(
            "string",
            "Where the reply goes: a queue of your own, or `amq.rabbitmq.reply-to` (direct reply-to of RabbitMQ). "
            "Consume the latter without acknowledgements, on the channel that publishes, before you publish. If there "
            "is no queue of that name, the request is executed, and the reply is dropped with a warning in the "
            "worker's log.",
        ),
        correlation_id=_CORRELATION,
        expiration=_property(
            "string",
            "How long (ms) the sender waits, in digits. Not for the sessions exchange. A tool call that still runs "
            "when it is over is cancelled, and answered with `TOOL_TIMEOUT`.",
            pattern="^[0-9]+$",
        ),
        **{headers.DEADLINE: _header(DEADLINE_MEANS) | {"type": ["string", "integer"]}},
        timestamp=_TIMESTAMP,
    ),
    "ReplyHeaders": _headers(
        "A message to the reply address of a request, with the request's correlation id.",
        ("type",),
        type=_TYPE,
        content_type=_content(message.JSON),
        message_id=_ID,
        correlation_id=_CORRELATION,
        timestamp=_TIMESTAMP,
    ),
    "EventHeaders": _headers(
        "CloudEvents 1.0 in structured mode: the event is in the body.",
        ("type", "content_type", "message_id"),
        type=_TYPE,
        content_type=_content("application/cloudevents+json"),
        message_id=_property("string", "The `id` of the event."),
        timestamp=_TIMESTAMP,
    ),
    "DeadLetterHeaders": {
        "type": "object",
        "description": DEAD_LETTER_MEANS,
        "properties": {
            "type": _property("string", "The message type, if it had one."),
            "content_type": _property("string", "MIME type of the body, if it had one."),
            "reply_to": _property("string", "The original reply address, only beside `x-death`."),
            **{name: _header(told) for name, told in DEAD_LETTER_HEADERS.items()},
            "x-death": _DEATHS,
            **_TRACE,
        },
        "anyOf": [
            {"required": [name for name in DEAD_LETTER_HEADERS if name not in _OPTIONAL]},
            {"required": ["x-death"]},
        ],
    },
    "InternalHeaders": {
        "type": "object",
        "description": "Between workers. Every message on its way to an owner has the headers of placement.",
        "properties": {
            "type": _TYPE,
            "content_type": _content(message.JSON),
            "message_id": _ID,
            "reply_to": _property("string", "The requesting worker's queue."),
            "user_id": _property(
                "string", "The user of the worker, which RabbitMQ verifies. Without it, workers refuse the message."
            ),
            "correlation_id": _CORRELATION,
            "timestamp": _TIMESTAMP,
            **{
                name: {"description": told, "type": ["string", "integer", "boolean"]} for name, told in _PLACING.items()
            },
            **_TRACE,
        },
        "required": ["type"],
    },
}
"""The headers and properties, by the names of their schemas."""
