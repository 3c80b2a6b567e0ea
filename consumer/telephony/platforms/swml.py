"""SignalWire SWML and Calling API webhooks, JSON over HTTP, forwarded by a bridge.

- status callbacks in RELAY's envelope, told apart by ``event_channel: "swml:<uuid>"``: signalwire/docs
  ``swml/.../connect/index.mdx`` (StatusCallbacks);
- the flat status of a REST dial's ``status_url``: signalwire-claude ``workflows/webhooks-events.md``;
- the fetch of a SWML document, an inbound call's start, sent again on transfer and execute:
  signalwire/docs ``webhooks/calling/models/inbound-call.tsp``. Handlers in the field read states from its ``call``
  too, so a fetch that says that the call has ended is an end.
"""

from consumer.telephony import values
from consumer.telephony.marks import Mark, has, inside, lacks
from consumer.telephony.platforms.signalwire import STATES, call_event, envelope_of, event_in, is_fetch
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind

SOURCE = "swml_status"

_CHANNEL = "swml:"


def _on_swml_channel(payload: Payload) -> bool:
    envelope = envelope_of(payload)
    channel = None if envelope is None else envelope.get("event_channel")
    return isinstance(channel, str) and channel.startswith(_CHANNEL)


FETCH = Mark("'call' is not the call object of a request for a SWML document", is_fetch, ("call",))
ON_SWML_CHANNEL = Mark(
    "it is not an event of SignalWire on a channel swml:...", _on_swml_channel, ("event_type", "params")
)
NO_FETCH = Mark("it asks for a SWML document", lambda payload: not is_fetch(payload), absence=True)
NO_EVENT = Mark("it is an event of RELAY", lambda payload: envelope_of(payload) is None, absence=True)

SHAPES = (
    (FETCH,),
    (ON_SWML_CHANNEL, NO_FETCH),
    (inside("message", has("message_id")),),
    (has("call_state"), has("call_id"), lacks("device", "kind"), NO_EVENT, NO_FETCH),
)


def translate(payload: Payload) -> Translated | Ignored:
    """Translate the call's state, or a document request, which means a start."""
    if is_fetch(payload):
        call = values.mapping(payload.get("call"))
        return call_event(SOURCE, call, payload, kind=_kind_of_fetch(call))
    if isinstance(payload.get("message"), dict):
        return Ignored(SOURCE, "message")
    envelope = envelope_of(payload)
    return event_in(SOURCE, envelope) if envelope is not None else call_event(SOURCE, payload, payload)


def _kind_of_fetch(call: Payload) -> CallKind:
    """Return the kind of a document request: a start, unless the call is known to be further on."""
    state = (values.text(call.get("call_state")) or "created").casefold()
    return CallKind.STARTED if state == "ringing" else STATES.get(state, CallKind.STARTED)
