"""Telnyx Call Control: webhooks of API v2, the same without their outer ``data``, and those of API v1.

Sources: developers.telnyx.com ``voice-api-webhooks``, ``receiving-webhooks``, ``callbacks/call-hangup``;
team-telnyx/telnyx-java ``CallInitiatedPayload``. Telnyx enforces no order, and sends an event again under the same
``data.id``. The legs of a session share ``call_session_id``, and nothing names the first of them. TeXML callbacks are
cXML's forms.
"""

from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.marks import Mark, Shape, among, fits, is_object, is_text, lacks
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind

SOURCE = "telnyx"

EVENTS = {
    "call.initiated": CallKind.STARTED,
    "call.answered": CallKind.PROGRESS,
    "call.bridged": CallKind.PROGRESS,
    "call.hangup": CallKind.ENDED,
}
STATES = {"call.initiated": "created", "call.answered": "answered", "call.bridged": "answered"}
DIRECTIONS = {"incoming": "inbound", "outgoing": "outbound"}

_EVENT: Shape = (among("record_type", ["event"]), is_text("event_type"), is_object("payload"))
_IN_DATA = Mark(
    "'data' is not an event of Telnyx: it needs record_type, event_type and payload",
    lambda body: fits(_EVENT, values.mapping(body.get("data"))),
    ("data",),
)

SHAPES = (_EVENT, (_IN_DATA, lacks("record_type", "specversion", "name")))

_ATTRIBUTES = (
    ("call_session_id", "call_session_id"), ("leg_id", "call_leg_id"), ("call_control_id", "call_control_id"),
    ("connection_id", "connection_id"), ("client_state", "client_state"), ("caller_name", "caller_id_name"),
    ("state", "state"), ("hangup_source", "hangup_source"), ("sip_hangup_cause", "sip_hangup_cause"),
    ("calling_party_type", "calling_party_type"), ("tags", "tags"),
)  # fmt: skip


def translate(payload: Payload) -> Translated | Ignored:
    """Translate the event of a leg. Other events on it (speech, recordings, detection of machines) are ignored."""
    event = payload if "event_type" in payload else values.mapping(payload["data"])
    name = str(event["event_type"])
    dotted = name.replace("_", ".")  # API v1: call_initiated
    kind = EVENTS.get(dotted)
    if kind is None:
        return Ignored(SOURCE, values.what(name))
    leg = values.mapping(event["payload"])
    direction = values.first(leg, "direction")
    return values.translated(
        SOURCE,
        kind,
        values.call_id(leg, "call_control_id" if leg.get("call_control_id") else "call_leg_id", "payload."),
        direction=DIRECTIONS.get(direction or "", direction),
        from_=values.first(leg, "from"),
        to=values.first(leg, "to"),
        end_reason=leg.get("hangup_cause"),
        occurred_at=(
            times.iso(event.get("occurred_at"))
            or times.iso(leg.get("occurred_at"))
            or times.iso(event.get("created_at"))
        ),
        state=STATES.get(dotted),
        about=_about(name, leg),
    )


def _about(name: str, leg: Payload) -> Iterator[tuple[str, object]]:
    yield "event", name
    yield from values.picked(leg, _ATTRIBUTES)
    yield from values.sip_headers(leg.get("custom_headers"))
