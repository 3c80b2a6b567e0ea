"""The text of a binding: ``{name}`` stands for what a session's metadata has, ``{name|default}`` has a default. Pure.

Whom telephony names cannot be named otherwise: the fields of a call event are read from the event alone.
"""

import re

from schemas.base import Json
from schemas.calls import CallEvent

_PART = re.compile(r"\{\{|\}\}|\{([^{}|]+)(?:\|([^{}]*))?\}")

EVENT_FIELDS = frozenset(field.alias or name for name, field in CallEvent.model_fields.items()) - {"attributes"}
"""Names that only a call event gives a value to."""


class Unbound(LookupError):
    """The metadata has nothing under the name that is this error's only argument, and no default is stated."""


def values_of(metadata: Json) -> dict[str, str]:
    """Return what a binding can name: the call event's fields, the metadata's own, and below them its attributes."""
    call = metadata.get("call")
    event: Json = call if isinstance(call, dict) else {}
    attributes = event.get("attributes")
    named = {
        **(attributes if isinstance(attributes, dict) else {}),
        **{name: value for name, value in metadata.items() if name not in EVENT_FIELDS},
        **{name: value for name, value in event.items() if name in EVENT_FIELDS},
    }
    return {
        name: str(value)
        for name, value in named.items()
        if isinstance(value, str | int | float) and (value or value == 0)
    }


def below_telephony(metadata: Json, start: Json) -> Json:
    """A client's metadata for a session, and over it what the ``start`` of its call gives to each of its sessions.

    What the call event names in its fields and attributes, the client's metadata cannot name as well.
    """
    event = start.get("call")
    attributes = event.get("attributes") if isinstance(event, dict) else None
    named = EVENT_FIELDS | (attributes.keys() if isinstance(attributes, dict) else set())
    return {name: value for name, value in metadata.items() if name not in named} | start


def filled(text: str, values: dict[str, str]) -> str:
    """The text with every name replaced; :class:`Unbound` when one has neither value nor default."""

    def value(part: re.Match[str]) -> str:
        match part[0]:
            case "{{" | "}}":
                return part[0][0]
            case _:
                name, default = part[1], part[2]
        found = values.get(name, default)
        if found is None:
            raise Unbound(name)
        return found

    return _PART.sub(value, text)
