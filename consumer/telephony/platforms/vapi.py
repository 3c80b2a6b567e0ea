"""Vapi: messages to the server URL.

Sources: docs.vapi.ai ``server-url/events``; VapiAI/server-sdk-python ``types/call.py``, ``server_message_message.py``.
``message.status`` is the status; ``message.call.status`` lags behind. Queued and ringing are not sent of every inbound
call, so whatever needs an answer says that the call is up. ``hang`` says that the assistant is slow, and ends nothing.
"""

from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.marks import Mark
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind

SOURCE = "vapi"

STATUSES = {
    "queued": CallKind.STARTED,
    "ringing": CallKind.PROGRESS,
    "in-progress": CallKind.PROGRESS,
    "forwarding": CallKind.PROGRESS,
    "ended": CallKind.ENDED,
}
STATES = {"queued": "created", "ringing": "ringing", "in-progress": "answered", "forwarding": "answered"}

MESSAGES = {
    "assistant-request": CallKind.STARTED,
    "tool-calls": CallKind.PROGRESS,
    "function-call": CallKind.PROGRESS,
    "transfer-destination-request": CallKind.PROGRESS,
    "handoff-destination-request": CallKind.PROGRESS,
    "knowledge-base-request": CallKind.PROGRESS,
    "end-of-call-report": CallKind.ENDED,
}
"""Messages about a call's life without a status: the report, and requests that only an active call makes."""

_OTHERS = frozenset({
    "status-update", "hang", "conversation-update", "speech-update", "model-output", "user-interrupted", "voice-input",
    "voice-request", "phone-call-control", "transfer-update", "language-change-detected", "language-changed",
})  # fmt: skip
_FAMILIES = ("transcript", "assistant.", "call.", "chat.", "session.", "handoff", "transfer", "speech")


def _is_message(payload: Payload) -> bool:
    message = payload.get("message")
    kind = message.get("type") if isinstance(message, dict) else None
    return isinstance(kind, str) and (kind in MESSAGES or kind in _OTHERS or kind.startswith(_FAMILIES))


SHAPES = (
    (
        Mark("in 'message', 'type' is not a message of Vapi", _is_message, ("message",)),
        Mark("it has other fields than 'message'", lambda payload: len(payload) == 1, absence=True),
    ),
)

_ATTRIBUTES = (
    ("phone_call_provider", "phoneCallProvider"), ("provider_call_id", "phoneCallProviderId"),
    ("call_type", "type"), ("org_id", "orgId"), ("assistant_id", "assistantId"), ("squad_id", "squadId"),
    ("phone_number_id", "phoneNumberId"), ("customer_id", "customerId"), ("call_name", "name"),
)  # fmt: skip


def translate(payload: Payload) -> Translated | Ignored:
    """Translate a message. Transcripts are ignored: they come after the end."""
    message = values.mapping(payload["message"])
    name = str(message["type"])
    status = values.first(message, "status") if name == "status-update" else None
    kind = STATUSES.get(status or "") if name == "status-update" else MESSAGES.get(name)
    if kind is None:
        return Ignored(SOURCE, values.what(name, status))
    call = values.mapping(message.get("call"))
    call_type = values.first(call, "type") or ""
    direction = {"inboundPhoneCall": "inbound", "outboundPhoneCall": "outbound"}.get(call_type)
    far = _party(message, call, "customer")
    ours = _party(message, call, "phoneNumber")
    requested = "ringing" if name == "assistant-request" else "answered"
    return values.translated(
        SOURCE,
        kind,
        values.call_id(call, "id", "message.call."),
        direction=direction,
        from_=ours if direction == "outbound" else far,
        to=far if direction == "outbound" else ours,
        end_reason=message.get("endedReason"),
        occurred_at=times.iso(message.get("endedAt")) or times.milliseconds(message.get("timestamp")),
        state=None if kind is CallKind.ENDED else STATES.get(status or "", requested),
        about=_about(name, status, call),
    )


def _party(message: Payload, call: Payload, name: str) -> str | None:
    for place in (message, call):
        party = values.mapping(place.get(name))
        if found := values.first(party, "number", "sipUri"):
            return found
    return None


def _about(name: str, status: str | None, call: Payload) -> Iterator[tuple[str, object]]:
    yield "event", name
    yield "status", status
    yield from values.picked(call, _ATTRIBUTES)
