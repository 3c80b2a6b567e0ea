"""Retell: webhooks of an agent or an account, and the requests of custom functions.

Sources: docs.retellai.com ``features/webhook-overview``, ``features/inbound-call-webhook``,
``api-references/register-phone-call``. A call that was never connected has no ``call_started``. Events are sent in
order but do not wait for one another, so an end can overtake its start. ``transfer_*`` and ``transcript_updated`` also
come after the end. The inbound request (``call_inbound``) has no id yet.
"""

from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.marks import begins, has, inside, is_object, lacks
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind

SOURCE = "retell"

EVENTS = {"call_started": CallKind.STARTED, "call_ended": CallKind.ENDED, "call_analyzed": CallKind.ENDED}

SHAPES = (
    (begins("event", "call_", "transcript_", "transfer_", "chat_"), is_object("call", "call_inbound", "chat")),
    (inside("call", has("call_id")), has("name"), has("args"), lacks("event", "function", "event_type")),
)

_ATTRIBUTES = (
    ("call_type", "call_type"), ("call_status", "call_status"), ("agent_id", "agent_id"), ("agent_name", "agent_name"),
    ("agent_version", "agent_version"), ("duration_ms", "duration_ms"),
)  # fmt: skip


def translate(payload: Payload) -> Translated | Ignored:
    """Translate the call's start or end. A function call means that the call is active."""
    name = values.first(payload, "event")
    kind = CallKind.PROGRESS if name is None else EVENTS.get(name)
    if kind is None:
        return Ignored(SOURCE, values.what(name))
    call = values.mapping(payload.get("call"))
    moment = {CallKind.STARTED: "start_timestamp", CallKind.ENDED: "end_timestamp"}.get(kind, "")
    return values.translated(
        SOURCE,
        kind,
        values.call_id(call, "call_id", "call."),
        direction=call.get("direction"),
        from_=values.first(call, "from_number"),
        to=values.first(call, "to_number"),
        end_reason=call.get("disconnection_reason"),
        occurred_at=times.milliseconds(call.get(moment)),
        state=None if kind is CallKind.ENDED else "answered",
        about=_about(name or "function", call),
    )


def _about(name: str, call: Payload) -> Iterator[tuple[str, object]]:
    yield "event", name
    yield from values.picked(call, _ATTRIBUTES)
    yield "provider_call_id", values.mapping(call.get("telephony_identifier")).get("twilio_call_sid")
