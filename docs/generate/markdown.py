"""Markdown from values: tables, and the types of pydantic's fields in words."""

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

A_WEEK = 604_800
_TYPES = {
    "string": "text",
    "number": "number",
    "integer": "whole number",
    "boolean": "true or false",
    "object": "object",
    "array": "list",
    "null": "null",
}


class Undocumented(Exception):
    """The code has something that nobody has written about, or the other way round; the message names it."""


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; what would break its cells is escaped."""
    names = list(columns)
    lines = [names, ["---"] * len(names), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(value: object) -> str:
    """Text set as code."""
    return f"`{value}`"


def literal(value: object) -> str:
    """A value as JSON has it, set as code."""
    return code(json.dumps(value, ensure_ascii=False))


def prose(thing: object) -> str:
    """The docstring of a class, as Markdown."""
    return re.sub(r"``(.+?)``", r"`\1`", inspect.getdoc(thing) or "")


def described(known: Iterable[str], written: Mapping[str, str], what: str) -> dict[str, str]:
    """What has been written about each of ``known``, in their order.

    Raises:
        Undocumented: something is missing, or is written about and does not exist.
    """
    names = list(known)
    missing = sorted(set(names) - set(written))
    invented = sorted(set(written) - set(names))
    if missing or invented:
        told = [f"nothing is written about {', '.join(missing)}"] if missing else []
        told += [f"there is no {', '.join(invented)}"] if invented else []
        raise Undocumented(f"{what}: {'; '.join(told)} (see docs/generate)")
    return {name: written[name] for name in names}


def fields(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """Name, type in words and default of each field as it is on the wire; ``required`` is one that must be there."""
    schema = model.model_json_schema(by_alias=True)
    for name, inner in schema.get("properties", {}).items():
        default = "required" if name in schema.get("required", ()) else _default(inner)
        yield name, type_of(inner, schema.get("$defs", {})), default


def _default(schema: Mapping[str, Any]) -> str:
    return "" if schema.get("default") is None else literal(schema["default"])


def type_of(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """A JSON Schema in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        inner = defs[name]
        return type_of(inner, defs) if "enum" in inner or "const" in inner else f"[{name}](#{name.lower()})"
    for combined in ("anyOf", "oneOf"):
        if combined in schema:
            kinds = [type_of(one, defs) for one in schema[combined] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(literal(value) for value in schema["enum"])
    if "const" in schema:
        return literal(schema["const"])
    if schema.get("format") == "date-time":
        return "time"
    if schema.get("exclusiveMinimum") == 0 and schema.get("maximum") == A_WEEK:
        return "seconds"
    return _plain(schema, defs)


def _plain(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    kind = str(schema.get("type", ""))
    if kind == "array" and "prefixItems" not in schema:
        return f"list of {type_of(schema.get('items', {}), defs)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        inner = type_of(schema["additionalProperties"], defs)
        return f"object of {inner}" if inner != "anything" else "object"
    return _TYPES.get(kind, "anything") + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low is not None:
        return f", {low} or more"
    return f", above {schema['exclusiveMinimum']}" if "exclusiveMinimum" in schema else ""
