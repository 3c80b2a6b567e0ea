"""What RELAY events and SWML webhooks share: the envelope, the call states, the call object.

Sources: signalwire-python ``relay/client.py``, ``relay/event.py``, ``relay/constants.py``; developer.signalwire.com
``sdks/realtime-sdk/voice/call-state``; signalwire/docs ``swml/.../connect/index.mdx`` (StatusCallbacks),
``calls/models/requests.tsp`` and ``webhooks/calling/models/inbound-call.tsp``.

``ending`` is progress, though an early end would be allowed: it carries no ``end_reason`` on recorded frames and the
first end wins, so taking it would lose the reason; tools that are in flight get the time until ``ended``; and it is
``ended`` that the SDKs drop a call on. An ``ending`` that comes after ``ended`` is stopped by the tombstone.
"""

from collections.abc import Iterator
from datetime import datetime

from consumer.telephony import times, values
from consumer.telephony.decode import json_name
from consumer.telephony.translation import Ignored, Payload, Translated, Unusable
from schemas.calls import CallKind

STATES = {
    # queued and initiated: calling-rpc/openrpc.yaml, an older list of the REST dial's status_events
    "queued": CallKind.STARTED,
    "initiated": CallKind.STARTED,
    "created": CallKind.STARTED,
    "ringing": CallKind.PROGRESS,
    "answered": CallKind.PROGRESS,
    "ending": CallKind.PROGRESS,
    "ended": CallKind.ENDED,
}
_BEFORE_RINGING = {"queued": "created", "initiated": "created"}

FAMILIES = (
    "calling.", "call.", "messaging.", "message.", "signalwire.", "queuing.", "tasking.", "task.", "provisioning.",
    "video.", "room.", "member.", "chat.", "conversation.", "webrtc.", "subscriber.",
)  # fmt: skip
"""The prefixes of SignalWire's event types. An ``event_type`` without one is another platform's."""

_NOT_OF_A_FETCH = (
    "event_type", "dial_state", "event", "function", "action", "post_prompt_data", "call_info", "args", "kind",
)  # fmt: skip
_OF_A_FETCHED_CALL = ("call_state", "node_id", "segment_id", "project_id", "space_id")
_BESIDE_A_FETCHED_CALL = ("vars", "envs", "params")

_DEEPEST = 3
"""How deep the envelope may be.

A JSON-RPC frame has it at ``params``, a legacy ``blade.broadcast`` one level deeper.
"""

_OF_THE_ENVELOPE = (
    ("event", "event_type"),
    ("event_channel", "event_channel"),
    ("project_id", "project_id"),
    ("space_id", "space_id"),
    ("context", "context"),
)
_OF_THE_CALL = (
    ("call_state", "call_state"),
    ("node_id", "node_id"),
    ("segment_id", "segment_id"),
    ("tag", "tag"),
    ("project_id", "project_id"),
    ("space_id", "space_id"),
    ("context", "context"),
    ("context", "protocol"),  # what the context was called before
    ("device_type", "type"),
    ("created_by", "created_by"),
    ("dial_winner", "dial_winner"),
)


def envelope_of(payload: Payload) -> Payload | None:
    """Return the object with the ``event_type``: the body itself, or its ``params``."""
    found = payload
    for _ in range(_DEEPEST):
        event_type = found.get("event_type")
        if isinstance(event_type, str):
            return found if event_type.startswith(FAMILIES) else None
        inner = found.get("params")
        if not isinstance(inner, dict):
            return None
        found = inner
    return None


def is_call(value: object) -> bool:
    """Return whether this is an object that identifies a call or has its state."""
    return isinstance(value, dict) and ("call_id" in value or "call_state" in value)


def is_fetch(payload: Payload) -> bool:
    """Return whether this is a request for a SWML document: a ``call`` as SWML describes it, no event, no function.

    An id alone does not make it one. Other platforms send a ``call`` with a ``call_id`` as well, to report its end.
    """
    call = payload.get("call")
    return (
        isinstance(call, dict)
        and not any(name in payload for name in _NOT_OF_A_FETCH)
        and (
            any(name in call for name in _OF_A_FETCHED_CALL)
            or ("call_id" in call and any(name in payload for name in _BESIDE_A_FETCHED_CALL))
        )
    )


def event_in(source: str, envelope: Payload) -> Translated | Ignored:
    """Translate the event of an envelope.

    The call's fields are in ``params``, or beside the ``event_type`` if the bridge forwarded the inner object only.
    Everything but a call's state, its receipt and an answered dial is about something else (play, record, connect
    of the parent call, messages, authorization).
    """
    event_type = str(envelope["event_type"])
    family, _, verb = event_type.rpartition("call.")
    if family not in ("calling.", ""):
        return Ignored(source, values.what(event_type))
    if verb in STATES:
        return call_event(source, _inner(envelope), envelope, state=verb)
    if verb == "state":
        return call_event(source, _inner(envelope), envelope)
    if verb in ("receive", "received"):
        # an inbound call is received before its first state, and only it
        call = _inner(envelope)
        inbound = {**call, "direction": call.get("direction") or "inbound"}
        return call_event(source, inbound, envelope, kind=CallKind.STARTED, state=_state(call) or "created")
    if verb == "dial":
        return _dial(source, _inner(envelope), envelope)
    return Ignored(source, values.what(event_type))


def call_event(
    source: str, call: Payload, envelope: Payload, kind: CallKind | None = None, state: str | None = None
) -> Translated | Ignored:
    """Translate a call object by its ``state`` (default: its ``call_state``) if no ``kind`` is given."""
    state = state or _state(call)
    kind = kind or STATES.get(state)
    if kind is None:
        return Ignored(source, values.what("call state", call.get("call_state") or "unknown"))
    device = values.mapping(call.get("device"))
    party = values.mapping(device.get("params")) or device
    return values.translated(
        source,
        kind,
        values.call_id(call, "call_id"),
        direction=call.get("direction"),
        from_=values.first(party, "from_number", "from") or values.first(call, "from", "from_number"),
        to=values.first(party, "to_number", "to") or values.first(call, "to", "to_number"),
        end_reason=call.get("end_reason"),
        parent=values.parent_id(values.mapping(call.get("parent")), "call_id"),
        occurred_at=_occurred_at(call, envelope, kind),
        state=_BEFORE_RINGING.get(state, state),
        about=_about(call, envelope, device, party),
    )


def _state(call: Payload) -> str:
    return (values.text(call.get("call_state")) or "").casefold()


def _inner(envelope: Payload) -> Payload:
    inner = envelope.get("params", envelope)
    if not isinstance(inner, dict):
        raise Unusable(f"params must be an object, is {json_name(inner)}")
    nested = values.mapping(inner.get("call"))
    return nested if is_call(nested) and "call_id" not in inner and "dial_state" not in inner else inner


def _dial(source: str, dial: Payload, envelope: Payload) -> Translated | Ignored:
    """Translate a dial. An answered one names the winning leg, which is up. Any other has no call yet, or never."""
    state = values.text(dial.get("dial_state")) or "unknown"
    call = values.mapping(dial.get("call"))
    if state.casefold() != "answered" or "call_id" not in call:
        return Ignored(source, values.what("calling.call.dial", state))
    return call_event(source, {"tag": dial.get("tag"), **call}, envelope, state="answered")


def _occurred_at(call: Payload, envelope: Payload, kind: CallKind) -> datetime | None:
    stamps = (envelope.get("timestamp"), call.get("timestamp"))
    for stamp in stamps:
        if found := times.seconds(stamp) or times.iso(stamp):
            return found
    own = {CallKind.STARTED: "start_time", CallKind.ENDED: "end_time"}.get(kind, "answer_time")
    return times.milliseconds(call.get(own))


def _about(call: Payload, envelope: Payload, device: Payload, party: Payload) -> Iterator[tuple[str, object]]:
    yield from values.picked(call, _OF_THE_CALL)
    yield from values.picked(envelope, _OF_THE_ENVELOPE)
    yield "device_type", device.get("type")
    yield "caller_name", party.get("from_name")
    yield "peer_call_id", values.mapping(call.get("peer")).get("call_id")
    yield from values.sip_headers(party.get("headers"))
    yield from values.sip_headers(call.get("headers"))
