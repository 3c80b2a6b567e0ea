"""ElevenLabs agents: the request for a conversation's data, and the webhooks after a call.

Sources: elevenlabs.io/docs ``eleven-agents/workflows/post-call-webhooks``, ``personalization/twilio-personalization``;
elevenlabs/elevenlabs-python ``conversation_history_twilio_phone_call_model.py``. The request is the only start: of
inbound calls, where it is switched on. The report of the end comes after the analysis, seconds to minutes late. Both
name the telephone provider's id of the call, so that its own callbacks meet them; a browser's conversation has its own
id only.
"""

from collections.abc import Iterator
from datetime import datetime

from consumer.telephony import times, values
from consumer.telephony.marks import begins, has, is_number, is_object, lacks
from consumer.telephony.translation import Ignored, Payload, Translated, Unusable
from schemas.calls import CallId, CallKind

SOURCE = "elevenlabs"

REPORT = "post_call_transcription"
FAILURE = "call_initiation_failure"

SHAPES = (
    (
        is_number("event_timestamp"),
        begins("type", "post_call_", "call_", "voice_", "conversation_", "speech_"),
        is_object("data"),
    ),
    (has("called_number"), has("caller_id"), has("agent_id"), has("call_sid"), lacks("type", "call_status", "event")),
)


def translate(payload: Payload) -> Translated | Ignored:
    """Translate a request for a conversation's data to a start, or a report to an end."""
    if "type" not in payload:
        return values.translated(
            SOURCE,
            CallKind.STARTED,
            values.call_id(payload, "call_sid"),
            direction="inbound",
            from_=values.first(payload, "caller_id"),
            to=values.first(payload, "called_number"),
            state="ringing",
            about=values.picked(payload, (("agent_id", "agent_id"), ("conversation_id", "conversation_id"))),
        )
    name = str(payload["type"])
    data = values.mapping(payload["data"])
    if name == REPORT:
        return _report(payload, data)
    return _failure(payload, data) if name == FAILURE else Ignored(SOURCE, values.what(name))


def _report(payload: Payload, data: Payload) -> Translated:
    metadata = values.mapping(data.get("metadata"))
    phone = values.mapping(metadata.get("phone_call"))
    outbound = phone.get("direction") == "outbound"
    far, ours = values.first(phone, "external_number"), values.first(phone, "agent_number")
    variables = values.mapping(values.mapping(data.get("conversation_initiation_client_data")).get("dynamic_variables"))
    return values.translated(
        SOURCE,
        CallKind.ENDED,
        _call(data, (phone, "call_sid"), (variables, "system__call_sid")),
        direction=phone.get("direction"),
        from_=ours if outbound else far,
        to=far if outbound else ours,
        end_reason=metadata.get("termination_reason"),
        occurred_at=_ended_at(metadata) or times.seconds(payload.get("event_timestamp")),
        about=_about(payload, data, phone),
    )


def _failure(payload: Payload, data: Payload) -> Translated:
    """Translate an outbound call that was not answered. The event contains the phone provider's own callback."""
    body = values.mapping(values.mapping(data.get("metadata")).get("body"))
    return values.translated(
        SOURCE,
        CallKind.ENDED,
        _call(data, (body, "CallSid"), (body, "call_sid")),
        direction=body.get("Direction") or "outbound",
        from_=values.first(body, "From", "from_number", "from"),
        to=values.first(body, "To", "to_number", "to"),
        end_reason=data.get("failure_reason"),
        occurred_at=times.seconds(payload.get("event_timestamp")),
        about=_about(payload, data, body),
    )


def _call(data: Payload, *places: tuple[Payload, str]) -> CallId:
    """Return the telephone provider's call id if there is one, else the conversation's."""
    for place, name in places:
        if values.first(place, name) is not None:
            return values.call_id(place, name)
    if "conversation_id" not in data:
        raise Unusable("there is neither a call_sid nor a data.conversation_id, so the call is unknown")
    return values.call_id(data, "conversation_id", "data.")


def _ended_at(metadata: Payload) -> datetime | None:
    began, lasted = metadata.get("start_time_unix_secs"), metadata.get("call_duration_secs")
    if isinstance(began, int | float) and isinstance(lasted, int | float):
        return times.seconds(began + lasted)
    return None


def _about(payload: Payload, data: Payload, phone: Payload) -> Iterator[tuple[str, object]]:
    yield "event", payload.get("type")
    yield "agent_id", data.get("agent_id")
    yield "conversation_id", data.get("conversation_id")
    yield "status", data.get("status")
    yield "phone_call_type", phone.get("type")
    yield "sip_result_code", phone.get("SipResponseCode")
