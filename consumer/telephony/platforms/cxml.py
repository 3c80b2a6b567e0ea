"""SignalWire cXML (Compatibility API), Twilio and Telnyx TeXML: status callbacks and document requests, mostly forms.

Sources: signalwire/docs ``compatibility-api/calls/models/webhooks.tsp``, ``cxml/voice/overview.mdx``,
``number-noun.mdx``. Every value is text in a form, a list after ``parse_qs``, and typed where a bridge follows the
OpenAPI document. Both ``answered`` and ``in-progress`` are sent (signalwire/docs-legacy#804).

Twilio sends the same forms (twilio.com/docs/usage/webhooks/voice-webhooks), and its Event Streams wrap them into
CloudEvents (/docs/events/event-types/voice/status-callback): the form is in ``data.request.parameters``.
"""

from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.marks import begins, fits, has, is_object, lacks
from consumer.telephony.translation import Ignored, Payload, Translated, Unusable
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
"""The call statuses, as ``normal_reason`` spells them."""

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
"""Callbacks that do not report a call's status, by the field that only they have."""

STREAMED = (begins("type", "com.twilio."), has("specversion"), is_object("data"), lacks("CallSid", "CallUUID"))

SHAPES = (
    (has("CallSid"),),
    (has("CallStatus"), lacks("CallUUID")),  # without its CallSid, to be told so; Plivo has the one and not the other
    (has(*_OTHERS), has("AccountSid"), lacks("CallUUID")),
    STREAMED,
)

_OF_A_STATUS_CALLBACK = ("CallbackSource", "SequenceNumber", "Timestamp")
"""Fields of a status callback (number-level ones have only the last) that a document request lacks."""

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
    ("sip_result_code", "SipResponseCode"),
    ("sip_result_phrase", "SipInviteResultPhrase"),
    ("answered_by", "AnsweredBy"),
    ("stir_verstat", "StirVerstat"),
    ("dial_call_sid", "DialCallSid"),
    ("dial_call_status", "DialCallStatus"),
    ("recording_sid", "RecordingSid"),
)
_SIP_HEADER = "SipHeader_"

_OF_TWILIO = "com.twilio.voice."
_STREAMED = {
    "initiated": "initiated",
    "ringing": "ringing",
    "answered": "in-progress",
    "completed": "completed",
    "requested": "ringing",
}
"""The call statuses by the last word of an event's type in Event Streams; ``requested`` is a document request."""


def translate(payload: Payload) -> Translated | Ignored:
    """Translate the status of a call.

    The callback of a recording does not end a call. Nor does a ``<Dial action>``: it reports the dialled leg, and its
    ``CallSid`` is the parent, which goes on.
    """
    if fits(STREAMED, payload):
        return _streamed(payload)
    fields = values.unlisted(payload)
    status = values.text(fields.get("CallStatus"))
    if status is None or "RecordingStatus" in fields:
        if "Status" in fields and not any(field in fields for field in _OTHERS):
            raise Unusable("the body has a Status but no CallStatus; neither Twilio nor SignalWire sends that")
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


def _streamed(event: Payload) -> Translated | Ignored:
    """Translate an event of Twilio's Event Streams, if it contains the form of a call's callback.

    ``...call.completed`` stands for every end; the form's ``CallStatus`` says which. Insights come up to half an hour
    after the end. Twilio's own examples have forms without fields: the type's last word is the status then.
    """
    kind = str(event["type"])
    words = kind.removeprefix(_OF_TWILIO).split(".")
    if not kind.startswith(_OF_TWILIO) or words[-1] not in _STREAMED or words[0] in ("insights", "amd"):
        return Ignored(SOURCE, values.what(kind))
    data = values.mapping(event.get("data"))
    form = values.mapping(values.mapping(data.get("request")).get("parameters"))
    filled = {name: value for name, value in form.items() if value != ""}
    known = {"CallStatus": _STREAMED[words[-1]]} | ({"CallSid": data["sid"]} if "sid" in data else {})
    if words[-1] != "requested":
        known["Timestamp"] = data.get("timestamp") or event.get("time")
    return translate({**known, **filled})


def _other(fields: Payload) -> str:
    return next((name for field, name in _OTHERS.items() if field in fields), "callback without CallStatus")


def _about(fields: Payload) -> Iterator[tuple[str, object]]:
    yield from values.picked(fields, _ATTRIBUTES)
    yield from values.sip_headers(
        {name.removeprefix(_SIP_HEADER): value for name, value in fields.items() if name.startswith(_SIP_HEADER)}
    )
