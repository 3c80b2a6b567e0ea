"""LiveKit: webhooks of the server, in which a telephone is a participant of kind SIP.

Sources: livekit/protocol ``livekit_webhook.proto``, ``livekit_models.proto``; docs.livekit.io
``reference/telephony/sip-participant``. The encoding is protojson: whole numbers of 64 bits are text, and fields with
their default value are left out, so a browser's participant has no ``kind`` at all. A room holds several legs or none:
neither its start nor its end is a call's.

No webhook tells when an outbound leg is answered. A leg that joins as ``dialing`` therefore has no ``call_state``: a
route that waits for the answer would wait in vain.
"""

from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.marks import among, either, has, is_object
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind

SOURCE = "livekit"

EVENTS = {
    "participant_joined": CallKind.STARTED,
    "participant_left": CallKind.ENDED,
    "participant_connection_aborted": CallKind.ENDED,
}
_OTHERS = (
    "room_started", "room_finished", "track_published", "track_unpublished", "egress_started", "egress_updated",
    "egress_ended", "ingress_started", "ingress_ended",
)  # fmt: skip

SHAPES = (
    (
        among("event", (*EVENTS, *_OTHERS)),
        either(has("createdAt"), is_object("room", "egressInfo", "ingressInfo")),
    ),
)

_SIP_KINDS = ("SIP", 3, "3")
"""The kinds of a SIP participant: protojson writes the name, test events of third parties the number."""

STATES = {"active": "answered"}
"""The state of a call by ``sip.callStatus``. Other words are ignored, because no later event would correct them."""

_ATTRIBUTES = (
    ("sip_trunk_id", "sip.trunkID"), ("sip_rule_id", "sip.ruleID"), ("sip_call_id", "sip.callIDFull"),
    ("sip_call_status", "sip.callStatus"), ("sip_hostname", "sip.hostname"), ("provider_call_id", "sip.twilio.callSid"),
)  # fmt: skip
_STANDARD = "sip."


def translate(payload: Payload) -> Translated | Ignored:
    """Translate a telephone's joining or leaving of a room."""
    name = str(payload["event"])
    participant = values.mapping(payload.get("participant"))
    kind = EVENTS.get(name)
    if kind is None:
        return Ignored(SOURCE, values.what(name))
    if participant.get("kind") not in _SIP_KINDS:
        return Ignored(SOURCE, values.what(name, "no telephone"))
    leg = values.mapping(participant.get("attributes"))
    inbound = values.first(leg, "sip.ruleID") is not None
    far, ours = values.first(leg, "sip.phoneNumber"), values.first(leg, "sip.trunkPhoneNumber")
    status = (values.first(leg, "sip.callStatus") or "").casefold()
    return values.translated(
        SOURCE,
        kind,
        values.call_id(leg, "sip.callID", "participant.attributes."),
        direction="inbound" if inbound else "outbound",
        from_=far if inbound else ours,
        to=ours if inbound else far,
        end_reason=participant.get("disconnectReason"),
        occurred_at=times.seconds(payload.get("createdAt")),
        state=STATES.get(status) if kind is CallKind.STARTED else None,
        about=_about(payload, participant, leg),
    )


def _about(payload: Payload, participant: Payload, leg: Payload) -> Iterator[tuple[str, object]]:
    room = values.mapping(payload.get("room"))
    yield "event", payload.get("event")
    yield "event_id", payload.get("id")
    yield "room_name", room.get("name")
    yield "room_id", room.get("sid")
    yield "participant_id", participant.get("sid")
    yield "participant_identity", participant.get("identity")
    yield from values.picked(leg, _ATTRIBUTES)
    yield from ((name, value) for name, value in leg.items() if not name.startswith((_STANDARD, "lk.")))
