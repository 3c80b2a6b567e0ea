"""SignalWire RELAY: events of a WebSocket, forwarded to RabbitMQ by a bridge.

Sources: signalwire-python ``relay/client.py::_handle_message``; signalwire-ruby ``spec/signalwire/relay`` for the
legacy ``blade.broadcast``. Whether a bridge forwards the whole JSON-RPC frame, its ``params`` or only the inner
``params`` is the bridge's choice, so all are read.
"""

from consumer.telephony import values
from consumer.telephony.decode import json_name
from consumer.telephony.marks import Mark, has, lacks
from consumer.telephony.platforms.signalwire import call_event, envelope_of, event_in
from consumer.telephony.platforms.swml import NO_FETCH, ON_SWML_CHANNEL
from consumer.telephony.translation import Ignored, Payload, Translated, Unusable

SOURCE = "relay"

_METHODS = ("signalwire.", "blade.", "calling.")
_EVENT_METHODS = ("signalwire.event", "blade.broadcast")


def _is_event(payload: Payload) -> bool:
    return envelope_of(payload) is not None


def _is_frame(payload: Payload) -> bool:
    method = payload.get("method")
    if isinstance(method, str):
        return method.startswith(_METHODS)
    return "jsonrpc" in payload and ("result" in payload or "error" in payload)


NOT_OF_SWML = Mark("it is an event on a channel swml:...", lambda body: not ON_SWML_CHANNEL.holds(body), absence=True)

SHAPES = (
    (
        Mark("it is not an event of SignalWire", _is_event, ("event_type", "params")),
        NOT_OF_SWML,
        NO_FETCH,
        lacks("record_type", "payload"),
    ),
    (Mark("it is not a frame of RELAY", _is_frame, ("method", "jsonrpc")), NOT_OF_SWML, NO_FETCH),
    (has("call_state"), has("call_id"), has("device"), lacks("kind"), NOT_OF_SWML, NO_FETCH),
    (has("dial_state"), has("tag"), NOT_OF_SWML),
)


def translate(payload: Payload) -> Translated | Ignored:
    """Translate the event of a frame. Frames without one (pings, answers, legacy tasks) are ignored."""
    envelope = envelope_of(payload)
    if envelope is not None:
        return event_in(SOURCE, envelope)
    if _is_frame(payload):
        return _frame(payload)
    if "dial_state" in payload:
        return event_in(SOURCE, {"event_type": "calling.call.dial", **payload})
    return call_event(SOURCE, payload, payload)


def _frame(payload: Payload) -> Ignored:
    method = payload.get("method")
    if method not in _EVENT_METHODS:
        return Ignored(SOURCE, values.what(method or "JSON-RPC answer"))
    params = payload.get("params")
    if not isinstance(params, dict):
        raise Unusable(f"params of {method} must be an object, is {json_name(params)}")
    return Ignored(SOURCE, values.what(method, params.get("event_type") or params.get("event")))
