"""Daily, and Pipecat Cloud on it: webhooks of dial-in and dial-out.

Sources: docs.daily.co ``reference/rest-api/webhooks/events`` (``dialin-*``, ``dialout-*``). A dial-in is connected when
it has joined the room; a dial-out is connected when it rings, and answered when somebody picks up. ``caller_id`` of a
dial-out is the id of a number. Participants and transfers have a ``session_id`` too, and are no calls.
"""

from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.marks import Mark, begins, has, is_number, is_object
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind

SOURCE = "daily"

EVENTS = {
    "dialin.connected": CallKind.STARTED,
    "dialin.stopped": CallKind.ENDED,
    "dialin.error": CallKind.ENDED,
    "dialout.connected": CallKind.STARTED,
    "dialout.answered": CallKind.PROGRESS,
    "dialout.stopped": CallKind.ENDED,
    "dialout.error": CallKind.ENDED,
}
STATES = {"dialin.connected": "answered", "dialout.connected": "ringing", "dialout.answered": "answered"}

_FAMILIES = (
    "dialin.", "dialout.", "calltransfer.", "meeting.", "participant.", "recording.", "transcript.", "streaming.",
    "waiting-participant.", "batch-processor.", "live-streaming.", "app-message.", "room.", "call.", "pstn.",
)  # fmt: skip

_TESTS = ({"test": "test"}, {"Test": "Test"}, {"Test": "test"})
"""The test requests when a webhook is created, which have to succeed."""

SHAPES = (
    (begins("type", *_FAMILIES), is_number("event_ts"), is_object("payload"), has("version")),
    (has("callDomain"), has("callId")),
    (Mark("it is not a test of a webhook", lambda payload: payload in _TESTS, ("test", "Test")),),
)

_ATTRIBUTES = (
    ("room_name", "room"), ("domain_id", "domain_id"), ("caller_name", "display_name"), ("number_id", "caller_id"),
)  # fmt: skip


def translate(payload: Payload) -> Translated | Ignored:
    """Translate a telephone's connection to a room or its leaving. A request for a room comes before any call."""
    if "type" not in payload:
        return Ignored(SOURCE, "pinless dial-in" if "callDomain" in payload else "test")
    name = str(payload["type"])
    kind = EVENTS.get(name)
    if kind is None:
        return Ignored(SOURCE, values.what(name))
    leg = values.mapping(payload["payload"])
    inbound = name.startswith("dialin.")
    return values.translated(
        SOURCE,
        kind,
        values.call_id(leg, "session_id", "payload."),
        direction="inbound" if inbound else "outbound",
        from_=values.first(leg, "sip_from", "origin"),
        to=values.first(leg, "destination"),
        end_reason=leg.get("error_msg"),
        occurred_at=times.seconds(leg.get("timestamp")) or times.seconds(payload.get("event_ts")),
        state=STATES.get(name),
        about=_about(name, payload, leg),
    )


def _about(name: str, payload: Payload, leg: Payload) -> Iterator[tuple[str, object]]:
    yield "event", name
    yield "event_id", payload.get("id")
    yield from values.picked(leg, _ATTRIBUTES)
    yield from values.sip_headers(leg.get("sip_headers"))
