"""Vonage Voice API: the webhooks of an application's ``event_url`` and ``answer_url``.

Sources: Nexmo/nexmo-oas-renderer ``voice-api/webhook-reference``; Vonage/vonage-php-sdk-core ``test/Voice/requests``;
Nexmo/nexmo-developer#1653. Each leg has a ``uuid``; the legs of a conversation share ``conversation_uuid``, which
changes on a transfer, so it is an attribute and no parent. Most ends come twice: the first has the reason,
``completed`` follows.
"""

from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.marks import has, lacks
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind

SOURCE = "vonage"

STATUSES = {
    "started": CallKind.STARTED,
    "ringing": CallKind.PROGRESS,
    "answered": CallKind.PROGRESS,
    "completed": CallKind.ENDED,
    "busy": CallKind.ENDED,
    "cancelled": CallKind.ENDED,
    "unanswered": CallKind.ENDED,
    "timeout": CallKind.ENDED,
    "rejected": CallKind.ENDED,
    "failed": CallKind.ENDED,
}
STATES = {"started": "created", "ringing": "ringing", "answered": "answered"}

SHAPES = ((has("conversation_uuid", "conversation_uuid_from"), lacks("call_id", "CallSid", "CallUUID", "kind")),)

_OTHERS = {
    "type": "typed event",
    "recording_url": "recording",
    "dtmf": "input",
    "speech": "input",
    "payload": "notify",
    "reason": "error",
}
"""Webhooks that do not report a leg's status, by the field that only they have."""

_ATTRIBUTES = (
    ("status", "status"), ("detail", "detail"), ("sip_code", "sip_code"), ("conversation_uuid", "conversation_uuid"),
    ("network", "network"), ("duration", "duration"), ("disconnected_by", "disconnected_by"),
)  # fmt: skip


def translate(payload: Payload) -> Translated | Ignored:
    """Translate a leg's status, or a request for the NCCO, which means a start."""
    fields = values.unlisted(payload)
    if other := next((name for field, name in _OTHERS.items() if field in fields), None):
        return Ignored(SOURCE, other)
    status = values.first(fields, "status")
    kind = STATUSES.get(status or "")
    if status is None and "uuid" in fields and "to" in fields and "timestamp" not in fields:
        kind, status = CallKind.STARTED, "started"
    if kind is None:
        return Ignored(SOURCE, values.what("status", status) if status else "untyped")
    headers = values.mapping(fields.get("headers"))
    return values.translated(
        SOURCE,
        kind,
        values.call_id(fields, "uuid"),
        direction=fields.get("direction"),
        from_=values.first(fields, "from", "from_user"),
        to=values.first(fields, "to"),
        end_reason=status,
        occurred_at=times.iso(fields.get("timestamp")),
        state=STATES.get(status or ""),
        about=_about(fields, headers),
    )


def _about(fields: Payload, headers: Payload) -> Iterator[tuple[str, object]]:
    yield from values.picked(fields, _ATTRIBUTES)
    yield from values.sip_headers(headers)
    yield from values.sip_headers(
        {name.removeprefix("SipHeader_"): value for name, value in fields.items() if name.startswith("SipHeader_")}
    )
