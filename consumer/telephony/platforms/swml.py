"""SignalWire SWML and Calling API webhooks, JSON over HTTP, forwarded by a bridge.

- status callbacks in RELAY's envelope, told apart by ``event_channel: "swml:<uuid>"``: signalwire/docs
  ``swml/.../connect/index.mdx`` (StatusCallbacks);
- the flat status of a REST dial's ``status_url``: signalwire-claude ``workflows/webhooks-events.md``;
- the fetch of a SWML document, an inbound call's start, sent again on transfer and execute:
  signalwire/docs ``webhooks/calling/models/inbound-call.tsp``. Handlers in the field read states from its ``call``
  too, so a fetch that says that the call has ended is an end.
"""

from consumer.telephony import values
from consumer.telephony.outcome import Ignored, Payload, Translated
from consumer.telephony.platforms.signalwire import STATES, call_event, envelope_of, event_in, is_call
from schemas.calls import CallKind

SOURCE = "swml_status"

_CHANNEL = "swml:"


def recognises(payload: Payload) -> bool:
    """Whether this is an event on a ``swml:`` channel, a document fetch, or a flat status."""
    if _is_fetch(payload) or _is_message(payload):
        return True
    envelope = envelope_of(payload)
    if envelope is None:
        return _is_flat(payload)
    channel = envelope.get("event_channel")
    return isinstance(channel, str) and channel.startswith(_CHANNEL)


def translate(payload: Payload) -> Translated | Ignored:
    """The call's state, or the start that a document fetch stands for."""
    if _is_fetch(payload):
        call = values.mapping(payload.get("call"))
        return call_event(SOURCE, call, payload, kind=_kind_of_fetch(call))
    if _is_message(payload):
        return Ignored(SOURCE, "message")
    envelope = envelope_of(payload)
    return event_in(SOURCE, envelope) if envelope is not None else call_event(SOURCE, payload, payload)


def _kind_of_fetch(call: Payload) -> CallKind:
    """A fetch is a start unless the call is known to be further on: it is ringing ("typically") when it is fetched."""
    state = (values.text(call.get("call_state")) or "created").casefold()
    return CallKind.STARTED if state == "ringing" else STATES.get(state, CallKind.STARTED)


def _is_fetch(payload: Payload) -> bool:
    """A ``call`` of its own: the inner object of a RELAY dial has one too."""
    return is_call(payload.get("call")) and "event_type" not in payload and "dial_state" not in payload


def _is_flat(payload: Payload) -> bool:
    return "call_id" in payload and "call_state" in payload and "device" not in payload


def _is_message(payload: Payload) -> bool:
    message = payload.get("message")
    return isinstance(message, dict) and "message_id" in message
