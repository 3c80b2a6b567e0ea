"""Parses values from the command line."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import typer

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def json_object(text: str, what: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        typer.BadParameter: it is not a JSON object. This is a usage error, exit code 2.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{what} must be a JSON object, is {text}")
    return value


def moment(text: str, what: str) -> datetime:
    """Parse a time: ISO 8601 (without an offset in this machine's zone), or an age such as ``90s``, ``10m``, ``2h``.

    Raises:
        typer.BadParameter: it is neither.
    """
    if found := re.fullmatch(r"(\d{1,9})([smhd])", text.strip()):
        return datetime.now(UTC) - timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{what} must be a time such as 2026-01-31T12:00 or an age such as 2h") from None


def tool_arguments(given: Sequence[str], schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Parse the arguments of a tool call: one JSON object, or ``key=value`` pairs.

    A value is text, unless the tool's input ``schema`` says that it is something else: then it is read as JSON.

    Raises:
        typer.BadParameter: it is neither.
    """
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        return json_object(given[0], "ARGS")
    arguments: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"ARGS must be a JSON object or key=value pairs, is {pair!r}")
        arguments[name] = _typed(value, _types(schema, name))
    return arguments


def wants_schema(given: Sequence[str]) -> bool:
    """Return whether parsing these arguments needs the tool's input schema, because a value may not be text."""
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        return False
    return any(not isinstance(_parsed(pair.partition("=")[2]), str) for pair in given)


def _types(schema: Mapping[str, Any] | None, name: str) -> set[str]:
    """Return the JSON types that a schema allows for a property; empty if it does not say."""
    properties = (schema or {}).get("properties")
    declared = properties.get(name) if isinstance(properties, dict) else None
    found: set[str] = set()
    for one in _alternatives(declared):
        named = one.get("type")
        found.update([named] if isinstance(named, str) else named if isinstance(named, list) else [])
    return found


def _alternatives(declared: object) -> list[Mapping[str, Any]]:
    if not isinstance(declared, dict):
        return []
    more = [one for key in ("anyOf", "oneOf") for one in declared.get(key) or [] if isinstance(one, dict)]
    return [declared, *more]


def _typed(value: str, types: set[str]) -> Any:
    return value if not types or "string" in types else _parsed(value)


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
