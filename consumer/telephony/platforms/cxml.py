"""SignalWire cXML (Compatibility API): status callbacks and document requests, forms by nature.

Sources: signalwire/docs ``compatibility-api/calls/models/webhooks.tsp``, ``cxml/voice/overview.mdx``,
``number-noun.mdx``. Every value is text in a form, a list after ``parse_qs``, and typed where a bridge follows the
OpenAPI document. Both ``answered`` and ``in-progress`` are sent (signalwire/docs-legacy#804).
"""

from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.outcome import Ignored, Payload, Translated
from schemas.calls import CallKind, normal_reason

SOURCE = "cxml"

STATUSES = {
    "queued": CallKind.STARTED,
    "initiated": CallKind.STARTED,
    "ringing": CallKind.PROGRESS,
    "answered": CallKind.PROGRESS,
    "inprogress": CallKind.PROGRESS,
    "completed": CallKind.ENDED,
    "busy": CallKind.ENDED,
    "noanswer": CallKind.ENDED,
    "canceled": CallKind.ENDED,
    "cancelled": CallKind.ENDED,
    "failed": CallKind.ENDED,
}
"""Call statuses as ``normal_reason`` spells them."""

STATES = {
    "queued": "created",
    "initiated": "created",
    "ringing": "ringing",
    "answered": "answered",
    "inprogress": "answered",
}

_OTHERS = {
    "RecordingStatus": "recording status",
    "TranscriptionSid": "transcription",
    "MessageSid": "message",
    "SmsSid": "message",
    "FaxSid": "fax",
    "ConferenceSid": "conference",
    "QueueSid": "queue",
    "DialCallStatus": "dial action",
}
"""Callbacks that are not a call's status, by the field that only they have."""

_OF_A_STATUS_CALLBACK = ("CallbackSource", "SequenceNumber", "Timestamp")
"""What a status callback has (the number-level one only the last) and the request for a document has not."""

_ATTRIBUTES = (
    ("call_status", "CallStatus"),
    ("account_sid", "AccountSid"),
    ("api_version", "ApiVersion"),
    ("callback_source", "CallbackSource"),
    ("sequence_number", "SequenceNumber"),
    ("caller_name", "CallerName"),
    ("forwarded_from", "ForwardedFrom"),
    ("call_duration", "CallDuration"),
    ("hangup_by", "HangupBy"),
    ("hangup_direction", "HangupDirection"),
    ("sip_result_code", "SipResultCode"),
    ("sip_result_phrase", "SipInviteResultPhrase"),
    ("dial_call_sid", "DialCallSid"),
    ("dial_call_status", "DialCallStatus"),
    ("recording_sid", "RecordingSid"),
)
_SIP_HEADER = "SipHeader_"


def recognises(payload: Payload) -> bool:
    """Whether a call is named as cXML does, or an account with something of its other than a call."""
    return (
        "CallSid" in payload
        or "CallStatus" in payload
        or ("AccountSid" in payload and any(field in payload for field in _OTHERS))
    )


def translate(payload: Payload) -> Translated | Ignored:
    """The call's status.

    No call ends by the callback of a recording, nor by a ``<Dial action>``: that one tells of the dialled leg, and its
    ``CallSid`` is the parent, which goes on.
    """
    fields = {name: _unlisted(value) for name, value in payload.items()}
    status = values.text(fields.get("CallStatus"))
    if status is None or "RecordingStatus" in fields:
        return Ignored(SOURCE, _other(fields))
    kind = STATUSES.get(normal_reason(status))
    if kind is None:
        return Ignored(SOURCE, values.what("call status", status))
    if kind is CallKind.ENDED and "DialCallStatus" in fields:
        return Ignored(SOURCE, "dial action")
    if normal_reason(status) == "ringing" and not any(field in fields for field in _OF_A_STATUS_CALLBACK):
        kind = CallKind.STARTED  # the request for the document that an inbound call is to follow
    return values.translated(
        SOURCE,
        kind,
        values.call_id(fields, "CallSid"),
        direction=fields.get("Direction"),
        from_=values.first(fields, "From", "Caller"),
        to=values.first(fields, "To", "Called"),
        end_reason=status,
        parent=values.parent_id(fields, "ParentCallSid"),
        state=STATES.get(normal_reason(status)),
        occurred_at=times.rfc2822(fields.get("Timestamp")) or times.iso(fields.get("Timestamp")),
        about=_about(fields),
    )


def _unlisted(value: object) -> object:
    """The value itself; of a list, as ``parse_qs`` makes, the last, which is the one that a form would keep."""
    return value[-1] if isinstance(value, list) and value else value


def _other(fields: Payload) -> str:
    return next((name for field, name in _OTHERS.items() if field in fields), "callback without CallStatus")


def _about(fields: Payload) -> Iterator[tuple[str, object]]:
    yield from values.picked(fields, _ATTRIBUTES)
    yield from values.sip_headers(
        {name.removeprefix(_SIP_HEADER): value for name, value in fields.items() if name.startswith(_SIP_HEADER)}
    )
