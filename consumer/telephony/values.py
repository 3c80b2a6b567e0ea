"""Reads the fields of platforms' events: text, ids, directions, attributes. All translators share it.

Everything is bounded, because an event travels on as message body and as session metadata, and a FreeSWITCH event
can have hundreds of kilobytes of variables.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain
from math import isfinite
from typing import Final, cast

from consumer.telephony.decode import json_name
from consumer.telephony.translation import Payload, Translated, Unusable
from schemas.base import Json
from schemas.calls import CALL_STATE, CallEvent, CallId, CallKind, Direction
from schemas.ids import MAX_ID_BYTES, escape_call_id
from schemas.text import replaced

MAX_TEXT_BYTES = 1024
MAX_NAME_BYTES = 128
MAX_WHAT_BYTES = 64
MAX_ATTRIBUTES = 64

Table = tuple[tuple[str, str], ...]
"""Attribute names, each with the platform's name of the field that it is read from."""

NOTHING: Final[Payload] = {}


def mapping(value: object) -> Payload:
    """Return the object in a field, or an empty one."""
    return value if isinstance(value, dict) else NOTHING


def unlisted(payload: Payload) -> Payload:
    """Return the fields of a form. Of a list, as ``parse_qs`` makes, the last value counts."""
    return {name: value[-1] if isinstance(value, list) and value else value for name, value in payload.items()}


def text(value: object, limit: int = MAX_TEXT_BYTES) -> str | None:
    """Return a scalar as valid text of at most ``limit`` bytes; None if it is blank or no scalar."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
        value = str(value)
    if not isinstance(value, str) or not value or value.isspace():
        return None
    if len(value) <= limit and value.isascii():
        return value
    return replaced(value[:limit]).encode()[:limit].decode("utf-8", "ignore")


def first(payload: Payload, *names: str) -> str | None:
    """Return the text of the first field that has one."""
    for name in names:
        found = text(payload.get(name))
        if found is not None:
            return found
    return None


def what(*words: object) -> str:
    """Return the name of an ignored event."""
    return one_line(" ".join(filter(None, (text(word, MAX_WHAT_BYTES) for word in words)))) or "untyped"


def one_line(words: str, limit: int = MAX_TEXT_BYTES) -> str:
    """Return text for a log, a label or a header: valid, short, without line breaks."""
    return " ".join((text(words, limit) or "").split())


def call_id(payload: Payload, name: str, path: str = "") -> CallId:
    """Return the call's id from the field ``name``. Errors name the field as ``path`` and ``name``.

    The id is opaque: any form is valid, and it is never trimmed. A whole number becomes its digits. A number with a
    fraction (an Asterisk id without its quotes) is refused, because it may have lost digits.

    Raises:
        Unusable: missing, of another type, blank, not Unicode, or over 255 bytes.
    """
    if name not in payload:
        raise Unusable(f"{path}{name} is missing, so the call is unknown")
    value, name = payload[name], f"{path}{name}"
    if isinstance(value, bool) or not isinstance(value, str | int):
        kind = "a number with a fraction" if isinstance(value, float) else json_name(value)
        raise Unusable(f"{name} must be text or a whole number, is {kind}")
    found = str(value)
    if not found or found.isspace():
        raise Unusable(f"{name} is empty, so the call is unknown")
    escaped = escape_call_id(found)
    try:
        size = len(escaped.encode())
    except UnicodeEncodeError as error:
        raise Unusable(f"{name} is not valid Unicode") from error
    if size > MAX_ID_BYTES:
        raise Unusable(f"{name} must be at most {MAX_ID_BYTES} bytes long, is {size}")
    return escaped


def parent_id(payload: Payload, name: str) -> CallId | None:
    """Return the id of another call that the body refers to; None if it is unusable."""
    try:
        return call_id(payload, name)
    except Unusable:
        return None


def direction_of(word: object) -> Direction | None:
    """Return the direction for the platform's word: ``outbound-api`` and ``outbound-dial`` are outbound."""
    stem = (text(word) or "").casefold().partition("-")[0]
    return cast("Direction", stem) if stem in ("inbound", "outbound", "internal") else None


def picked(payload: Payload, table: Table) -> Iterator[tuple[str, object]]:
    """Return the fields in ``table``, under their attribute names."""
    return ((name, payload.get(field)) for name, field in table)


def sip_headers(headers: object) -> Iterator[tuple[str, object]]:
    """Return custom SIP headers as attributes ``sip_header_<name>``, in the same way for every platform.

    Sent as an object (Kazoo) or as a list of ``{"name", "value"}`` (SignalWire); header names have no case.
    """
    if isinstance(headers, dict):
        yield from ((f"sip_header_{name.casefold()}", value) for name, value in headers.items())
    elif isinstance(headers, list):
        for header in map(mapping, headers):
            name = text(header.get("name"), MAX_NAME_BYTES)
            if name:
                yield f"sip_header_{name.casefold()}", header.get("value")


def attributes(pairs: Iterable[tuple[str, object]]) -> Json:
    """Return named values as short texts.

    Empty values are left out, and a list of scalars becomes one text. If a name occurs twice, the first value counts.
    """
    found: Json = {}
    for name, value in pairs:
        if len(found) == MAX_ATTRIBUTES:
            break
        shown = text(_joined(value) if isinstance(value, list) else value)
        if shown is not None and name not in found:
            clean = text(name, MAX_NAME_BYTES)
            if clean == name:
                found[name] = shown
    return found


def _joined(values: list[object]) -> str:
    return ",".join(filter(None, (text(value) for value in values[:MAX_ATTRIBUTES])))


def translated(
    source: str,
    kind: CallKind,
    call: CallId,
    *,
    direction: object = None,
    from_: str | None = None,
    to: str | None = None,
    end_reason: object = None,
    parent: CallId | None = None,
    occurred_at: datetime | None = None,
    state: str | None = None,
    about: Iterable[tuple[str, object]] = (),
) -> Translated:
    """Return the normalised event.

    An end reason is kept of an end only, the platform's word for a direction that is not ours as the attribute
    ``platform_direction``, and a call is never its own parent. ``state`` (``created``, ``ringing``, ``answered``) is
    the state of the call, if the event has it.
    """
    known = direction_of(direction)
    word = text(direction)
    other_word = None if word is None or word.casefold() == known else word
    return Translated(
        CallEvent(
            call_id=call,
            kind=kind,
            source=source,
            direction=known,
            from_=from_,
            to=to,
            end_reason=text(end_reason) if kind is CallKind.ENDED else None,
            parent_call_id=None if parent == call else parent,
            occurred_at=occurred_at,
            attributes=attributes(chain([(CALL_STATE, state), ("platform_direction", other_word)], about)),
        )
    )
