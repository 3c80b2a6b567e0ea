"""SignalWire RELAY: events of a WebSocket, forwarded to RabbitMQ by a bridge.

Sources: signalwire-python ``relay/client.py::_handle_message``; signalwire-ruby ``spec/signalwire/relay`` for the
legacy ``blade.broadcast``. Whether a bridge forwards the whole JSON-RPC frame, its ``params`` or only the inner
``params`` is the bridge's choice, so all are read.
"""

from consumer.telephony import values
from consumer.telephony.decode import json_name
from consumer.telephony.outcome import Ignored, Payload, Translated, Unusable
from consumer.telephony.platforms.signalwire import call_event, envelope_of, event_in

SOURCE = "relay"

_METHODS = ("signalwire.", "blade.", "calling.")
_EVENT_METHODS = ("signalwire.event", "blade.broadcast")


def recognises(payload: Payload) -> bool:
    """Whether this is an event of RELAY, one of its JSON-RPC frames, or the bare object of a call or a dial."""
    return (
        envelope_of(payload) is not None
        or _is_frame(payload)
        or ("call_id" in payload and "call_state" in payload and "device" in payload)
        or ("dial_state" in payload and "tag" in payload)
    )


def translate(payload: Payload) -> Translated | Ignored:
    """The event of a frame; frames without one (pings, answers, legacy tasks) are no call's affair."""
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


def _is_frame(payload: Payload) -> bool:
    method = payload.get("method")
    if isinstance(method, str):
        return method.startswith(_METHODS)
    return "jsonrpc" in payload and ("result" in payload or "error" in payload)
