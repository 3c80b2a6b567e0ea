"""Wazo: call events of the exchange ``wazo-headers``, published by wazo-calld.

Sources: wazo-bus ``resources/calls/event.py``, ``mixins.py``; wazo-calld ``calls/notifier.py``, ``schemas.py``. One
event for each user's leg; the legs of a conversation share ``conversation_id``, which is the id of its oldest channel
and, after a transfer, not one that made this leg: an attribute, not a parent.
"""

from collections.abc import Iterator
from datetime import datetime

from consumer.telephony import times, values
from consumer.telephony.decode import json_name
from consumer.telephony.marks import has
from consumer.telephony.platforms.channel_states import CHANNEL_STATES, OF_WAZO
from consumer.telephony.translation import Ignored, Payload, Translated, Unusable
from schemas.calls import CallKind

SOURCE = "wazo"

EVENTS = {
    "call_created": CallKind.STARTED,
    "call_answered": CallKind.PROGRESS,
    "call_updated": CallKind.PROGRESS,
    "call_ended": CallKind.ENDED,
}
STATES = {"call_created": "created", "call_answered": "answered"}
"""The state of a call."""

SHAPES = ((has("name"), has("data"), has(*OF_WAZO)),)

_ATTRIBUTES = (
    ("event", "name"),
    ("tenant_uuid", "tenant_uuid"),
    ("origin_uuid", "origin_uuid"),
)
_OF_THE_CALL = (
    ("conversation_id", "conversation_id"),
    ("user_uuid", "user_uuid"),
    ("status", "status"),
    ("is_caller", "is_caller"),
    ("is_video", "is_video"),
    ("dialed_extension", "dialed_extension"),
    ("line_id", "line_id"),
    ("caller_name", "caller_id_name"),
    ("peer_name", "peer_caller_id_name"),
    ("sip_call_id", "sip_call_id"),
)


def translate(payload: Payload) -> Translated | Ignored:
    """Translate the event of a leg. Events that are not about calls are ignored.

    ``call_updated`` (hold, mute, another name) says that the call is alive; its ``status`` is the state of the call.
    """
    name = values.text(payload["name"])
    kind = EVENTS.get(name or "")
    if kind is None:
        return Ignored(SOURCE, values.what(name))
    data = payload["data"]
    if not isinstance(data, dict):
        raise Unusable(f"data must be an object, is {json_name(data)}")
    from_, to = _parties(data)
    return values.translated(
        SOURCE,
        kind,
        values.call_id(data, "call_id"),
        direction=data.get("direction"),
        from_=from_,
        to=to,
        end_reason=data.get("reason_code"),
        occurred_at=_occurred_at(payload, data, kind),
        state=STATES.get(name or "") or CHANNEL_STATES.get((values.first(data, "status") or "").casefold()),
        about=_about(payload, data),
    )


def _parties(data: Payload) -> tuple[str | None, str | None]:
    """Return the caller and the called party. The caller id is that of the leg's own user, who is one of them."""
    own = values.first(data, "caller_id_number")
    peer = values.first(data, "peer_caller_id_number")
    dialed = values.first(data, "dialed_extension")
    return (peer, own or dialed) if data.get("is_caller") is False else (own, dialed or peer)


def _occurred_at(payload: Payload, data: Payload, kind: CallKind) -> datetime | None:
    """Return the event's time, written without an offset in UTC, or else the leg's, written with one."""
    own = {CallKind.STARTED: "creation_time", CallKind.ENDED: "hangup_time"}.get(kind, "answer_time")
    return times.iso(payload.get("timestamp")) or times.iso(data.get(own))


def _about(payload: Payload, data: Payload) -> Iterator[tuple[str, object]]:
    yield from values.picked(payload, _ATTRIBUTES)
    yield from values.picked(data, _OF_THE_CALL)
