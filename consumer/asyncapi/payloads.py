"""Bodies as JSON Schemas, draft 7: what AsyncAPI is made of, and what generators of every language can read.

Schemas of requests are closed, because a worker refuses unknown fields. Schemas of replies and events are open, because
a newer worker may add fields, and readers must tolerate these.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from schemas.calls import CallEvent
from schemas.errors import ErrorBody, by_code
from schemas.event_data import EVENTS, SessionEndedData
from schemas.events import CloudEvent, EndReason
from schemas.interim import INTERIM
from schemas.internal import ANSWERS, INTERNAL
from schemas.replies import REPLY_SUFFIX, RESULTS
from schemas.requests import REQUESTS

Schema = dict[str, Any]

REF = "#/components/schemas/"

CALL_EVENT = "call.event"
PLATFORM_EVENT = "platform.event"
DEAD_LETTER = "dead_letter"
"""Names in this document of messages without an AMQP ``type``."""

UNKNOWN_REPLY = f"unknown{REPLY_SUFFIX}"
"""The reply to a message without a type. For an unknown type it is ``<type>.reply``."""

_FAILED = "Failed"
_BUILT = {CloudEvent.__name__}
"""Models that are only parts of other models."""


class _Plain(GenerateJsonSchema):
    """Generates titles for types only, because generators make a type of everything with a title."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


def schema_name(message_type: str) -> str:
    """Return the name of the schema of a message's body."""
    models: dict[str, type[BaseModel]] = {CALL_EVENT: CallEvent, **REQUESTS, **INTERIM, **{m.type: m for m in INTERNAL}}
    if message_type in models:
        return models[message_type].__name__
    if message_type in EVENTS:
        return f"{EVENTS[message_type].__name__.removesuffix('Data')}Event"
    return "".join(word.capitalize() for word in re.split(r"[._]", message_type))


def message_types() -> tuple[str, ...]:
    """Return every message by its type, or by a name if it has no type."""
    replies = [f"{kind}{REPLY_SUFFIX}" for kind in REQUESTS]
    between = [*(model.type for model in INTERNAL), *(model.type for model in ANSWERS)]
    return CALL_EVENT, PLATFORM_EVENT, *REQUESTS, *replies, UNKNOWN_REPLY, *INTERIM, *EVENTS, DEAD_LETTER, *between


def schemas() -> dict[str, Schema]:
    """Return every schema by its name. References between them begin with ``REF``."""
    read: list[type[BaseModel]] = [CallEvent, *REQUESTS.values(), *INTERNAL]
    told: list[type[BaseModel]] = [
        *(ErrorBody, CloudEvent),
        *(*RESULTS.values(), *INTERIM.values(), *EVENTS.values(), *ANSWERS),
    ]
    _, made = models_json_schema(
        [(model, "validation") for model in dict.fromkeys([*read, *told])],
        schema_generator=_Plain,
        ref_template=f"{REF}{{model}}",
    )
    found: dict[str, Schema] = {name: _tidy(schema) for name, schema in made["$defs"].items()}
    for name in reachable({model.__name__ for model in told}, found):
        if found[name].get("additionalProperties") is False:
            del found[name]["additionalProperties"]
    _narrow(found)
    found[_FAILED] = _object("The request failed.", ok={"const": False}, error=_ref(ErrorBody.__name__))
    found |= {schema_name(kind): schema for kind, schema in _built(found)}
    return {name: found[name] for name in sorted(set(found) - _BUILT)}


def reachable(names: set[str], among: Mapping[str, Schema]) -> set[str]:
    """Return these schemas and all schemas that they refer to."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += _referred(among[name])
    return seen


def _referred(schema: Any) -> Iterator[str]:
    match schema:
        case {"$ref": str(ref)}:
            yield ref.removeprefix(REF)
        case dict():
            for inner in schema.values():
                yield from _referred(inner)
        case list():
            for inner in schema:
                yield from _referred(inner)
        case _:
            pass


def _ref(name: str) -> Schema:
    return {"$ref": f"{REF}{name}"}


def _object(description: str, **properties: Schema) -> Schema:
    return {"type": "object", "description": description, "properties": properties, "required": list(properties)}


def _tidy(schema: Any) -> Any:
    """Convert docstrings to Markdown, and isolate references, because draft 7 ignores what stands beside one."""
    match schema:
        case {"$ref": _, **beside} if beside:
            return {"allOf": [{"$ref": schema["$ref"]}], **_tidy(beside)}
        case dict():
            return {
                key: markdown(value) if key == "description" and isinstance(value, str) else _tidy(value)
                for key, value in schema.items()
            }
        case list():
            return [_tidy(inner) for inner in schema]
        case _:
            return schema


def markdown(text: str) -> str:
    """Return a docstring as CommonMark, with each paragraph on one line."""
    paragraphs = re.sub(r"``(.+?)``", r"`\1`", inspect.cleandoc(text)).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def first_paragraph(text: str) -> str:
    """Return the first paragraph of a docstring."""
    return text.partition("\n\n")[0]


def _narrow(found: dict[str, Schema]) -> None:
    """Restrict bodies by the type of their message."""
    for kind, request in REQUESTS.items():
        if issubclass(request, CallEvent):
            found[request.__name__] |= {"title": request.__name__}
            found[request.__name__]["properties"]["kind"] = {"const": kind.partition(".")[2]}
    for kind, data in EVENTS.items():
        if issubclass(data, SessionEndedData):
            reasons = [one.value for one in EndReason if kind == f"mcp.session.{one.event_type.value}"]
            found[data.__name__]["properties"]["reason"] = {"type": "string", "enum": reasons}
    codes = found["ErrorCode"]
    classes = {code.value: one for code, one in by_code().items()}
    codes["x-enum-descriptions"] = [markdown(classes[code].__doc__ or "") for code in codes["enum"]]
    executed = {False: "no", None: "unknown"}
    codes["x-executed"] = {code: executed[classes[code].executed] for code in codes["enum"]}
    codes["x-retryable"] = [code for code in codes["enum"] if classes[code].retryable]


def _built(found: Mapping[str, Schema]) -> Iterator[tuple[str, Schema]]:
    """Build the schemas of bodies that no single model describes."""
    results = {**{f"{kind}{REPLY_SUFFIX}": model for kind, model in RESULTS.items()}, **{m.type: m for m in ANSWERS}}
    for kind, result in results.items():
        good = _object("The request succeeded.", ok={"const": True}, result=_ref(result.__name__))
        told = f"The answer to `{kind.removesuffix(REPLY_SUFFIX)}`."
        yield kind, {"title": schema_name(kind), "description": told, "oneOf": [good, _ref(_FAILED)]}
    for kind, data in EVENTS.items():
        event = deepcopy(found[CloudEvent.__name__])
        event["properties"] |= {"type": {"const": kind}, "data": _ref(data.__name__)}
        yield (
            kind,
            event
            | {
                "title": schema_name(kind),
                "description": found[data.__name__]["description"],
                "required": list(event["properties"]),
            },
        )
    told = "The reply to a message without a type. The reply to an unknown type is `<type>.reply`."
    yield UNKNOWN_REPLY, {"title": schema_name(UNKNOWN_REPLY), "description": told, "allOf": [_ref(_FAILED)]}
    yield (
        PLATFORM_EVENT,
        {
            "title": schema_name(PLATFORM_EVENT),
            "description": "An event of a telephony platform, unchanged. The platform defines its format.",
            "type": "object",
        },
    )
    yield (
        DEAD_LETTER,
        {"title": schema_name(DEAD_LETTER), "description": "The body as it was published: it need not be JSON."},
    )
