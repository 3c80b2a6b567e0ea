"""The reference of the HTTP gateway, from its OpenAPI document."""

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

from consumer.gateway import openapi
from docs.generate.markdown import code, described, literal, table, type_of

TAGS = {
    "gateway": "SignalWire's gateway API",
    "tokens": "Call tokens",
    "events": "Webhooks",
    "swaig": "SWAIG functions",
    "probes": "Health and metrics",
}

Schema = Mapping[str, Any]


def operations() -> str:
    """Every operation, by its tag."""
    document = openapi.document()
    schemas = document["components"]["schemas"]
    found = [
        (one["tags"][0], f"{method.upper()} {path}", one)
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    ]
    headings = described(dict.fromkeys(tag for tag, _, _ in found), TAGS, "tags of OpenAPI")
    parts: list[str] = []
    for tag, group in groupby(found, key=lambda one: one[0]):
        parts.append(f"## {headings[tag]}")
        parts += [f"### {code(title)}\n\n{_operation(one, schemas)}" for _, title, one in group]
    return "\n\n".join(parts)


def _operation(one: Schema, schemas: Schema) -> str:
    parts = [f"{one['summary']}. " + ("Needs no credentials." if one.get("security") == [] else "")]
    if body := one.get("requestBody"):
        kinds = ", ".join(code(kind) for kind in body["content"])
        words = _body(next(iter(body["content"].values()))["schema"], schemas)
        parts.append(f"Takes {words} as {kinds}{'' if body['required'] else '; it may be left out'}.")
    headers = (told for told in one.get("parameters", ()) if told["in"] == "header")
    parts += [f"Header {code(told['name'])}: {told['description']}" for told in headers]
    answered = one["responses"].get("200", {}).get("headers", {})
    parts += [f"Header {code(name)} of the response: {told['description']}" for name, told in answered.items()]
    rows = [
        (code(status), _answer(answer, schemas), _when(one, answer["description"]))
        for status, answer in one["responses"].items()
    ]
    return "\n\n".join([part.strip() for part in parts] + [table(("status", "body", "when"), rows)])


def _when(one: Schema, description: str) -> str:
    return "It is done." if description == f"{one['summary']}." else description


def _answer(answer: Schema, schemas: Schema) -> str:
    for kind, content in answer.get("content", {}).items():
        return _body(content["schema"], schemas) if kind == openapi.JSON else code(kind)
    return "none"


def _body(schema: Schema, schemas: Schema) -> str:
    return type_of(schema, schemas) if schema else "an event as its platform sends it"


def models() -> str:
    """Every body, field by field."""
    schemas = openapi.document()["components"]["schemas"]
    return "\n\n".join(f"### {name}\n\n{_model(schemas[name], schemas)}" for name in sorted(schemas))


def _model(schema: Schema, schemas: Schema) -> str:
    told = (schema.get("description") or "").replace("``", "`")
    rows = list(_fields(schema, schemas))
    return f"{told}\n\n{table(('field', 'type', 'default', 'meaning'), rows)}".strip()


def _fields(schema: Schema, schemas: Schema) -> Iterator[tuple[str, str, str, str]]:
    for name, inner in schema.get("properties", {}).items():
        default = "" if inner.get("default") is None else literal(inner["default"])
        wanted = "required" if name in schema.get("required", ()) and not default else default
        yield (
            code(name),
            type_of(inner, schemas),
            wanted,
            " ".join(inner.get("description", "").replace("``", "`").split()),
        )


PARTS: dict[str, Callable[[], str]] = {"http-operations": operations, "http-models": models}
