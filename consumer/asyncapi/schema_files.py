"""A self-contained JSON Schema file for each message, for generators that cannot follow references."""

from typing import Any

from consumer.asyncapi.payloads import REF, Schema, message_types, reachable, schema_name, schemas

DIALECT = "http://json-schema.org/draft-07/schema#"

ID = "urn:mcp-sessions:schema:"
"""The prefix of schema ids. It is a name and no address, so nothing can be fetched there."""

_INNER = "#/definitions/"


def schema_files() -> dict[str, Schema]:
    """Return the schema of each message by the name of its file, ``<type>.json``."""
    known = schemas()
    return {f"{kind}.json": _alone(kind, known) for kind in message_types()}


def _alone(kind: str, known: dict[str, Schema]) -> Schema:
    name = schema_name(kind)
    inner = sorted(reachable({name}, known) - {name})
    definitions = {"definitions": {one: _inward(known[one]) for one in inner}} if inner else {}
    return {"$schema": DIALECT, "$id": f"{ID}{kind}", **_inward(known[name]), **definitions}


def _inward(schema: Any) -> Any:
    match schema:
        case {"$ref": str(ref)}:
            return {"$ref": _INNER + ref.removeprefix(REF)}
        case dict():
            return {key: _inward(value) for key, value in schema.items()}
        case list():
            return [_inward(inner) for inner in schema]
        case _:
            return schema
