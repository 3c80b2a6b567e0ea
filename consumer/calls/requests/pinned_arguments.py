"""Bound arguments: what a service pins in every call of its tools, from the metadata of the session.

``bind = { caller = "{from}" }`` gives each tool that has an argument ``caller`` the caller's number, whatever its
requester says; the argument is taken out of the tool's schema, so that a model does not even see it.
"""

from collections.abc import Mapping
from typing import Any

from schemas.base import Json


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return ""  # an anonymous caller has no number; an argument that nobody may fill in stays empty


def values_of(metadata: Json) -> dict[str, Any]:
    """What can be named in a binding: the call event's fields and attributes, and over them the metadata's own."""
    call = metadata.get("call")
    event: Json = call if isinstance(call, dict) else {}
    attributes = event.get("attributes")
    named = {**(attributes if isinstance(attributes, dict) else {}), **event, **metadata}
    return {name: value for name, value in named.items() if isinstance(value, str | int | float)}


def _properties(tool: Json) -> Json:
    schema = tool.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return properties if isinstance(properties, dict) else {}


def bound_arguments(bind: Mapping[str, str], metadata: Json, tools: list[Json], name: str, arguments: Json) -> Json:
    """``arguments`` with those pinned that the tool has."""
    if not bind:
        return arguments
    tool = next((one for one in tools if one.get("name") == name), {})
    known = _Known(values_of(metadata))
    pinned = {argument: text.format_map(known) for argument, text in bind.items() if argument in _properties(tool)}
    return arguments | pinned


def public_tools(bind: Mapping[str, str], tools: list[Json]) -> list[Json]:
    """The tools as requesters see them: without the arguments that are pinned."""
    if not bind:
        return tools
    return [_without(tool, bind) for tool in tools]


def _without(tool: Json, bind: Mapping[str, str]) -> Json:
    hidden = bind.keys() & _properties(tool).keys()
    if not hidden:
        return tool
    schema = dict(tool["inputSchema"])
    schema["properties"] = {name: value for name, value in schema["properties"].items() if name not in hidden}
    if isinstance(required := schema.get("required"), list):
        schema["required"] = [name for name in required if name not in hidden]
    return {**tool, "inputSchema": schema}
