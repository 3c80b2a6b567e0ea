"""Bound arguments: values that a service sets in every call of its tools, from the session's metadata.

``bind = { caller = "{from}" }`` gives each tool that takes an argument ``caller`` the caller's number, whatever its
requester says; the argument is taken out of the tool's schema, so that a model does not even see it. A requester's
own ``caller`` reaches no tool and no prompt of the service, whatever their schemas say.
"""

from collections.abc import Iterable, Mapping

from consumer.calls.requests.argument_schema import taken_by, without
from consumer.calls.requests.binding_text import Unbound, filled, values_of
from schemas.base import Json
from schemas.errors import InvalidMessage


def bound_arguments(bind: Mapping[str, str], metadata: Json, tools: list[Json], name: str, arguments: Json) -> Json:
    """Return ``arguments`` of a tool with bound ones replaced, or removed if the tool does not accept them.

    Raises:
        InvalidMessage: a name in a binding has no value in the metadata, and no default.
    """
    if not bind:
        return arguments
    tool = next((one for one in tools if one.get("name") == name), {})
    free = {argument: value for argument, value in arguments.items() if argument not in bind}
    return free | _pinned(bind, taken_by(tool.get("inputSchema"), bind.keys()), metadata, name)


def bound_prompt(bind: Mapping[str, str], metadata: Json, name: str, arguments: Json) -> Json:
    """Return ``arguments`` of a prompt with bound ones replaced. Only its server knows which it accepts."""
    return arguments | _pinned(bind, bind.keys() & arguments.keys(), metadata, name)


def _pinned(bind: Mapping[str, str], wanted: Iterable[str], metadata: Json, name: str) -> Json:
    values = values_of(metadata)
    pinned: Json = {}
    for argument in wanted:
        try:
            pinned[argument] = filled(bind[argument], values)
        except Unbound as unbound:
            (missing,) = unbound.args
            raise InvalidMessage(
                f"{name}: its argument {argument!r} is bound to {{{missing}}}, and the session's metadata has no value "
                f"for that; a default can be stated as {{{missing}|default}}",
                argument=argument,
                missing=missing,
            ) from None
    return pinned


def public_tools(bind: Mapping[str, str], tools: list[Json]) -> list[Json]:
    """Return the tools as requesters see them: without the bound arguments."""
    if not bind:
        return tools
    return [_without(tool, bind) for tool in tools]


def _without(tool: Json, bind: Mapping[str, str]) -> Json:
    schema = tool.get("inputSchema")
    hidden = taken_by(schema, bind.keys())
    return {**tool, "inputSchema": without(schema, hidden)} if hidden and isinstance(schema, dict) else tool
