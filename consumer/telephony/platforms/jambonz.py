"""jambonz: call hooks, status hooks and action hooks over HTTP, and the frames of its WebSocket API.

Sources: jambonz/jambonz-feature-server ``lib/session/call-info.js``, ``lib/utils/constants.json``,
``lib/utils/http-requestor.js``; docs.jambonz.org ``call-status``, ``ws/verb-hook``. The call is ``call_sid``;
``call_id`` is the Call-ID of SIP. The call hook and the status hook both report the start, and each action hook repeats
all fields. No event has a time.
"""

from collections.abc import Iterator

from consumer.telephony import values
from consumer.telephony.marks import Mark, has, lacks
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind

SOURCE = "jambonz"

STATUSES = {
    "trying": CallKind.STARTED,
    "queued": CallKind.STARTED,
    "ringing": CallKind.PROGRESS,
    "early-media": CallKind.PROGRESS,
    "in-progress": CallKind.PROGRESS,
    "completed": CallKind.ENDED,
    "busy": CallKind.ENDED,
    "no-answer": CallKind.ENDED,
    "failed": CallKind.ENDED,
}
STATES = {
    "trying": "created", "queued": "created", "ringing": "ringing", "early-media": "ringing", "in-progress": "answered",
}  # fmt: skip
FRAMES = {"session:new": "trying"}
"""The status that a frame implies if it names none."""

_NO_STATUS = ("verb:status", "jambonz:error")


def _has_colon(payload: Payload) -> bool:
    kind = payload.get("type")
    return isinstance(kind, str) and ":" in kind


SHAPES = (
    (has("call_status"), has("call_sid", "application_sid", "trace_id", "sip_status"), lacks("kind")),
    (has("msgid"), has("call_sid"), Mark("'type' has no colon", _has_colon)),
    (has("message_sid"), has("application_sid")),
)

_ATTRIBUTES = (
    ("call_status", "call_status"), ("sip_call_id", "call_id"), ("sip_status", "sip_status"),
    ("sip_reason", "sip_reason"),
    ("account_sid", "account_sid"), ("application_sid", "application_sid"), ("trace_id", "trace_id"),
    ("caller_name", "caller_name"), ("caller_id", "caller_id"), ("duration", "duration"),
    ("terminated_by", "call_termination_by"), ("trunk", "originating_sip_trunk_name"), ("reason", "reason"),
)  # fmt: skip


def translate(payload: Payload) -> Translated | Ignored:
    """Translate the call's own status. ``dial_call_status`` belongs to the dialled leg, which has its own hooks."""
    if "message_sid" in payload and "call_status" not in payload:
        return Ignored(SOURCE, "message")
    frame = values.first(payload, "type") if "msgid" in payload else None
    call = values.mapping(payload.get("data")) if frame else payload
    status = values.first(call, "call_status") or FRAMES.get(frame or "")
    kind = STATUSES.get(status or "")
    if kind is None or frame in _NO_STATUS:
        return Ignored(SOURCE, values.what(frame or "call status", status))
    return values.translated(
        SOURCE,
        kind,
        values.call_id(call if "call_sid" in call else payload, "call_sid"),
        direction=call.get("direction"),
        from_=values.first(call, "from"),
        to=values.first(call, "to"),
        end_reason=status,
        parent=values.parent_id(call, "parent_call_sid"),
        state=STATES.get(status or ""),
        about=_about(frame, call),
    )


def _about(frame: str | None, call: Payload) -> Iterator[tuple[str, object]]:
    yield "event", frame
    yield from values.picked(call, _ATTRIBUTES)
    custom = values.mapping(call.get("customerData"))
    yield "tag", custom.get("tag")
    headers = values.mapping(values.mapping(call.get("sip")).get("headers"))
    yield from values.sip_headers({name: value for name, value in headers.items() if name[:2].casefold() == "x-"})
