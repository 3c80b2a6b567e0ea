"""FreeSWITCH mod_amqp: channel events, one flat object in which every value is text.

Sources: signalwire/freeswitch ``mod_amqp_producer.c``, ``switch_event.c::switch_event_serialize_json_obj``,
``switch_channel.c::switch_channel_event_set_basic_data``, ``conf/vanilla/autoload_configs/amqp.conf.xml``.

- One call is several channels. ``Unique-ID`` is the leg's own id and stays; ``Channel-Call-UUID`` is the A leg's id
  in a B leg's CREATE and its own again in its DESTROY (``switch_ivr_bridge.c``), so it identifies nothing.
- A channel's end comes up to three times (HANGUP, HANGUP_COMPLETE, DESTROY), and sites filter some: all are ends.
- ``loopback/`` channels are legs like any other here; the attribute ``endpoint`` lets a route leave them out.
- ``CHANNEL_UUID`` renames a channel. An event speaks of one call only, so it is ignored: mostly it comes before the
  CREATE (``origination_uuid``); after a rename in mid-call the old id is left to its idle timeout.
"""

from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.marks import has, lacks
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallId, CallKind

SOURCE = "freeswitch_amqp"

EVENTS = {
    "CHANNEL_CREATE": CallKind.STARTED,
    "CHANNEL_ANSWER": CallKind.PROGRESS,
    "CHANNEL_HANGUP": CallKind.ENDED,
    "CHANNEL_HANGUP_COMPLETE": CallKind.ENDED,
    "CHANNEL_DESTROY": CallKind.ENDED,
}
STATES = {"CHANNEL_CREATE": "created", "CHANNEL_ANSWER": "answered"}
"""The state of a call."""

SHAPES = (
    (has("Event-Name"), has("Unique-ID"), lacks("Event-Category")),
    (has("Event-Name"), lacks("Unique-ID", "Call-ID", "Event-Category")),
)
"""The shape of FreeSWITCH's events. Kazoo's events also have an ``Event-Name``, but other fields with it."""

_ATTRIBUTES = (
    ("event", "Event-Name"),
    ("hostname", "FreeSWITCH-Hostname"),
    ("switchname", "FreeSWITCH-Switchname"),
    ("core_uuid", "Core-UUID"),
    ("event_sequence", "Event-Sequence"),
    ("context", "Caller-Context"),
    ("dialplan", "Caller-Dialplan"),
    ("channel_name", "Channel-Name"),
    ("channel_call_uuid", "Channel-Call-UUID"),
    ("presence_id", "Channel-Presence-ID"),
    ("session_external_id", "Session-External-ID"),
    ("username", "Caller-Username"),
    ("caller_name", "Caller-Caller-ID-Name"),
    ("callee_name", "Caller-Callee-ID-Name"),
    ("callee_number", "Caller-Callee-ID-Number"),
    ("ani", "Caller-ANI"),
    ("network_addr", "Caller-Network-Addr"),
    ("module", "Caller-Source"),
    ("other_type", "Other-Type"),
    ("other_leg_unique_id", "Other-Leg-Unique-ID"),
    ("sip_profile", "variable_sofia_profile_name"),
    ("sip_gateway", "variable_sip_gateway_name"),
    ("sip_call_id", "variable_sip_call_id"),
    ("domain_name", "variable_domain_name"),
    ("account_code", "variable_accountcode"),
    ("hangup_cause_q850", "variable_hangup_cause_q850"),
    ("hangup_disposition", "variable_sip_hangup_disposition"),
    ("duration", "variable_duration"),
    ("billsec", "variable_billsec"),
)
_VARIABLE = "variable_"
_SIP_HEADER = "variable_sip_h_"
_MAX_VARIABLE_LENGTH = 256

_OF_THE_SWITCH = tuple(
    f"{_VARIABLE}{name}"
    for name in (
        "DP_MATCH", "accountcode", "advertised_", "answer", "audio_", "billmsec", "billsec", "billusec", "bridge_",
        "call_uuid", "caller_id", "channel_name", "codec", "created_", "current_application", "digits_dialed",
        "direction", "domain_name", "dtmf_", "duration", "end_", "endpoint_", "ep_codec", "export_vars", "flow_bill",
        "hangup_", "hold_accum", "is_outbound", "last_", "local_", "max_forwards", "mduration", "originat", "playback_",
        "presence_id", "profile_start", "progress", "proto_specific", "read_", "recovery_", "remote_", "rtp_", "sdp_",
        "session_id", "signal_bond", "sip_", "sofia_", "start_", "switch_", "transfer_", "uduration", "use_codec",
        "uuid", "video_", "wait", "write_",
    )
)  # fmt: skip
"""The prefixes of the switch's own variables. Others were set by a dialplan, and may steer routes."""


def translate(payload: Payload) -> Translated | Ignored:
    """Translate a channel's event by its name. ``Channel-State`` is not used, because it lags behind on HANGUP."""
    name = (values.text(payload["Event-Name"]) or "").upper()
    kind = EVENTS.get(name)
    if kind is None:
        return Ignored(SOURCE, values.what(payload["Event-Name"]))
    return values.translated(
        SOURCE,
        kind,
        values.call_id(payload, "Unique-ID"),
        direction=payload.get("Call-Direction"),
        from_=values.first(payload, "Caller-Caller-ID-Number", "Caller-ANI", "variable_sip_from_user"),
        to=values.first(payload, "Caller-Destination-Number", "Caller-Callee-ID-Number", "variable_sip_req_user"),
        end_reason=values.first(payload, "Hangup-Cause", "variable_hangup_cause"),
        parent=_parent(payload),
        occurred_at=times.microseconds(payload.get("Event-Date-Timestamp")),
        state=STATES.get(name),
        about=_about(payload),
    )


def _parent(payload: Payload) -> CallId | None:
    """Return the leg that created this one.

    The other leg counts only if it is the originator (the A leg has one too).
    """
    parent = values.parent_id(payload, "variable_originating_leg_uuid")
    if parent is None and payload.get("Other-Type") == "originator":
        parent = values.parent_id(payload, "Other-Leg-Unique-ID")
    return parent


def _about(payload: Payload) -> Iterator[tuple[str, object]]:
    yield from values.picked(payload, _ATTRIBUTES)
    yield "endpoint", (values.text(payload.get("Channel-Name")) or "").partition("/")[0]
    custom = []
    for name, value in payload.items():
        if name.startswith(_SIP_HEADER):
            yield f"sip_header_{name.removeprefix(_SIP_HEADER).casefold()}", value
        elif name.startswith(_VARIABLE) and not name.startswith(_OF_THE_SWITCH):
            custom.append((name, value))
    yield from (pair for pair in custom if len(str(pair[1])) <= _MAX_VARIABLE_LENGTH)
