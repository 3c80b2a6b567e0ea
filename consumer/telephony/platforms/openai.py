"""OpenAI's Realtime API over SIP: the webhook of an incoming call.

Sources: openai/openai-python ``types/webhooks/realtime_call_incoming_webhook_event.py``, ``unwrap_webhook_event.py``;
developers.openai.com ``realtime-sip``. There is no webhook for the end: the application learns of it on its own socket.
``realtime.call.ended`` and its like are not in OpenAI's list; they are read, because one integrator expects them.

One INVITE raises both ``realtime.call.incoming`` and ``live.transport.incoming`` where a project subscribes to both,
under ids that have nothing in common; the attribute ``sip_call_id`` shows that they are one call.
"""

import re
from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.marks import begins, is_number, is_object, is_text, lacks
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind

SOURCE = "openai"

EVENTS = {
    "realtime.call.incoming": (CallKind.STARTED, "call_id"),
    "live.transport.incoming": (CallKind.STARTED, "session_id"),
    "realtime.call.ended": (CallKind.ENDED, "call_id"),
    "realtime.call.hangup": (CallKind.ENDED, "call_id"),
    "realtime.call.hungup": (CallKind.ENDED, "call_id"),
}
"""The kind of each event, and the field of ``data`` with the call's id."""

_FAMILIES = ("realtime.", "live.", "response.", "batch.", "eval.", "fine_tuning.", "video.", "agent.", "safety.")

SHAPES = (
    (begins("type", *_FAMILIES), is_number("created_at"), is_text("id"), is_object("data"), lacks("specversion")),
)

_ADDRESS = re.compile(r"<([^<>]+)>")


def translate(payload: Payload) -> Translated | Ignored:
    """Translate an incoming call, which nobody has accepted yet."""
    name = str(payload["type"])
    if name not in EVENTS:
        return Ignored(SOURCE, values.what(name))
    kind, id_field = EVENTS[name]
    data = values.mapping(payload["data"])
    headers = dict(_headers(data.get("sip_headers")))
    return values.translated(
        SOURCE,
        kind,
        values.call_id(data, id_field, "data."),
        direction="inbound",
        from_=_address(headers.get("from")),
        to=_address(headers.get("to")),
        occurred_at=times.seconds(payload.get("created_at")),
        state="ringing" if kind is CallKind.STARTED else None,
        about=_about(payload, data, headers),
    )


def _headers(listed: object) -> Iterator[tuple[str, str]]:
    """Return the SIP headers by name in lower case. Of a repeated one, the first counts."""
    found = [values.mapping(header) for header in listed] if isinstance(listed, list) else []
    for header in reversed(found):
        name, value = values.first(header, "name"), values.first(header, "value")
        if name and value:
            yield name.casefold(), value


def _address(value: str | None) -> str | None:
    """Return the URI of ``"Name" <sip:...>;tag=...``, or the text if it has no brackets."""
    if value is None:
        return None
    found = _ADDRESS.search(value)
    return found[1] if found else values.text(value.partition(";")[0].strip())


def _about(payload: Payload, data: Payload, headers: dict[str, str]) -> Iterator[tuple[str, object]]:
    yield "event", payload.get("type")
    yield "event_id", payload.get("id")
    yield "sip_call_id", headers.get("call-id")
    yield "transport", data.get("type")
    yield "provider_call_id", headers.get("x-twilio-callsid")
    yield from values.sip_headers({name: value for name, value in headers.items() if name[:2] == "x-"})
    yield "sip_header_diversion", headers.get("diversion")
