"""Kazoo: call events of the exchange ``callevt``.

Sources: 2600hz/kazoo ``kapi_call.erl``, ``blackhole/doc/README.md``. ``LEG_*`` events carry the other leg's life under
this leg's ``Call-ID``, so they start and end no call.
"""

from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.marks import has, lacks
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallId, CallKind

SOURCE = "kazoo"

EVENTS = {
    "CHANNEL_CREATE": CallKind.STARTED,
    "CHANNEL_ANSWER": CallKind.PROGRESS,
    "CHANNEL_DESTROY": CallKind.ENDED,
}
STATES = {"CHANNEL_CREATE": "created", "CHANNEL_ANSWER": "answered"}
"""The state of a call."""

SHAPES = (
    (has("Event-Name"), has("Event-Category")),
    (has("Call-ID"), has("Event-Name"), lacks("Unique-ID")),  # FreeSWITCH has no Call-ID of its own
)

_ATTRIBUTES = (
    ("event", "Event-Name"),
    ("caller_name", "Caller-ID-Name"),
    ("callee_name", "Callee-ID-Name"),
    ("callee_number", "Callee-ID-Number"),
    ("from_uri", "From"),
    ("to_uri", "To"),
    ("request_uri", "Request"),
    ("media_server", "Media-Server"),
    ("node", "Node"),
    ("app_name", "App-Name"),
    ("presence_id", "Presence-ID"),
    ("other_leg_call_id", "Other-Leg-Call-ID"),
    ("disposition", "Disposition"),
    ("hangup_code", "Hangup-Code"),
    ("duration", "Duration-Seconds"),
    ("billsec", "Billing-Seconds"),
)
_CHANNEL_VARIABLES = (
    ("account_id", "Account-ID"),
    ("account_name", "Account-Name"),
    ("account_realm", "Account-Realm"),
    ("realm", "Realm"),
    ("reseller_id", "Reseller-ID"),
    ("authorizing_id", "Authorizing-ID"),
    ("authorizing_type", "Authorizing-Type"),
    ("owner_id", "Owner-ID"),
    ("resource_id", "Resource-ID"),
    ("call_interaction_id", "Call-Interaction-ID"),
)


def translate(payload: Payload) -> Translated | Ignored:
    """Translate an event of a channel."""
    category = values.text(payload.get("Event-Category", "call_event"))
    name = values.text(payload["Event-Name"])
    kind = EVENTS.get((name or "").upper())
    if kind is None or category != "call_event":
        return Ignored(SOURCE, values.what(name) if category == "call_event" else values.what(category, name))
    return values.translated(
        SOURCE,
        kind,
        values.call_id(payload, "Call-ID"),
        direction=payload.get("Call-Direction"),
        from_=values.first(payload, "Caller-ID-Number") or _user(payload, "From"),
        to=_user(payload, "Request") or _user(payload, "To") or values.first(payload, "Callee-ID-Number"),
        end_reason=payload.get("Hangup-Cause"),
        parent=_parent(payload),
        occurred_at=times.gregorian_seconds(payload.get("Timestamp")),
        state=STATES.get((name or "").upper()),
        about=_about(payload),
    )


def _user(payload: Payload, name: str) -> str | None:
    """Return the number in ``user@realm``, which routes are written for."""
    return (values.first(payload, name) or "").removeprefix("sip:").partition("@")[0] or None


def _parent(payload: Payload) -> CallId | None:
    """Return the other leg if this one is outbound. An inbound leg has another leg too, but not as its parent."""
    outbound = values.direction_of(payload.get("Call-Direction")) == "outbound"
    return values.parent_id(payload, "Other-Leg-Call-ID") if outbound else None


def _about(payload: Payload) -> Iterator[tuple[str, object]]:
    yield from values.picked(payload, _ATTRIBUTES)
    yield from values.picked(values.mapping(payload.get("Custom-Channel-Vars")), _CHANNEL_VARIABLES)
    yield from values.sip_headers(payload.get("Custom-SIP-Headers"))
