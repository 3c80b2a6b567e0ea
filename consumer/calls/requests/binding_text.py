"""The text of a binding: ``{name}`` stands for a value of the session's metadata, ``{name|default}`` has a default.

Pure.

A client cannot override what telephony says: the fields of a call event are read from the event alone.
"""

import re

from schemas.base import Json
from schemas.calls import CallEvent

_PART = re.compile(r"\{\{|\}\}|\{([^{}|]+)(?:\|([^{}]*))?\}")

_FIELDS = {field.serialization_alias or name for name, field in CallEvent.model_fields.items()}
EVENT_FIELDS = frozenset(_FIELDS - {"attributes"})
"""Names whose values come only from a call event."""


class Unbound(LookupError):
    """The metadata has no value for the name in this error, and the binding has no default."""


def values_of(metadata: Json) -> dict[str, str]:
    """Return the values a binding can use: the call event's fields, then the metadata's own, then its attributes."""
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
    """Merge a client's metadata for a session with the metadata that the call's ``start`` gives to each session.

    The client's metadata cannot override the fields and attributes of the call event.
    """
    event = start.get("call")
    attributes = event.get("attributes") if isinstance(event, dict) else None
    named = EVENT_FIELDS | (attributes.keys() if isinstance(attributes, dict) else set())
    return {name: value for name, value in metadata.items() if name not in named} | start


def filled(text: str, values: dict[str, str]) -> str:
    """Return the text with every name replaced. Raises :class:`Unbound` if one has neither value nor default."""

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
