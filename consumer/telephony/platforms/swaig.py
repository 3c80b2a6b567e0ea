"""SignalWire AI: SWAIG functions and hooks, post-prompt callbacks, the debug webhook.

Sources: signalwire/docs ``webhooks/ai/models/{swaig,post-prompt,debug,sidecar,common}.tsp``; signalwire-python
``core/swaig_request_generated.py``, ``core/agent_base.py::on_call_end``.

The hooks mark an AI session, and a call can have two of them or go on without; they are the only start and end that
an AI webhook gives, so they are taken for the call's. A conversation of type ``chat`` has a conversation id for a
``call_id`` and no call.
"""

from collections.abc import Iterator
from datetime import datetime

from consumer.telephony import times, values
from consumer.telephony.marks import among, has, is_object, is_text
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind

SOURCE = "swaig"

HOOKS = {"startup_hook": CallKind.STARTED, "hangup_hook": CallKind.ENDED}
"""The functions that report a start or an end. Any other function means that the call is active."""

_FUNCTION_MARKS = (
    "argument", "argument_desc", "meta_data_token", "ai_session_id", "channel_data", "content_disposition",
    "call_id", "call",
)  # fmt: skip
_ACTIONS = ("post_conversation", "fetch_conversation", "get_signature")

SHAPES = (
    (is_text("function"), has(*_FUNCTION_MARKS)),
    (among("action", _ACTIONS),),
    (has("post_prompt_data"),),
    (is_object("call_info"),),
)

_ATTRIBUTES = (
    ("function", "function"),
    ("action", "action"),
    ("app_name", "app_name"),
    ("ai_session_id", "ai_session_id"),
    ("conversation_id", "conversation_id"),
    ("conversation_type", "conversation_type"),
    ("project_id", "project_id"),
    ("space_id", "space_id"),
    ("caller_name", "caller_id_name"),
    ("ended_by", "call_ended_by"),
    ("ended_by", "ended_by"),
    ("error_reason", "error_reason"),
    ("error_reason", "fatal_error_reason"),
)
_OF_THE_CALL = (("device_type", "type"), ("segment_id", "segment_id"), ("node_id", "node_id"), ("tag", "tag"))


def translate(payload: Payload) -> Translated | Ignored:
    """Translate a request of an AI session."""
    info = values.mapping(payload.get("call_info"))
    if "chat" in (payload.get("conversation_type"), info.get("conversation_type")):
        return Ignored(SOURCE, "chat")
    function = values.text(payload.get("function"))
    if function:
        # before the action: a Bedrock agent's functions come with action fetch_conversation
        return _event(payload, HOOKS.get(function, CallKind.PROGRESS))
    if info:
        return _debug(payload, info)
    action = values.text(payload.get("action"))
    if action == "post_conversation" or (action is None and "post_prompt_data" in payload):
        timed_out = "hard_timeout" if payload.get("hard_timeout") is True else None
        return _event(payload, CallKind.ENDED, timed_out)
    return Ignored(SOURCE, values.what(action))


def _debug(payload: Payload, info: Payload) -> Translated | Ignored:
    """Translate the debug feed, which reports every step. Its hooks only say how long the real hooks took."""
    end = payload.get("session_end")
    if end is not None:
        return _event({**values.mapping(end), **info}, CallKind.ENDED, values.mapping(end).get("reason"))
    if payload.get("session_start") is not None:
        return _event(info, CallKind.STARTED)
    return Ignored(SOURCE, "debug")


def _event(body: Payload, kind: CallKind, end_reason: object = None) -> Translated:
    call = _call(body)
    channel = values.mapping(body.get("channel_data"))
    return values.translated(
        SOURCE,
        kind,
        values.call_id(next((place for place in (body, call, channel) if "call_id" in place), body), "call_id"),
        direction=call.get("direction"),
        from_=(
            values.first(body, "caller_id_num", "caller_id_number", "caller_id", "from_number")
            or values.first(call, "from", "from_number")
            or values.first(channel, "caller_id_number")
        ),
        to=(
            values.first(call, "to", "to_number")
            or values.first(body, "to_number")
            or values.first(channel, "destination_number")
        ),
        end_reason=end_reason,
        parent=values.parent_id(values.mapping(call.get("parent")), "call_id"),
        occurred_at=_occurred_at(body, kind),
        about=_about(body, call, channel),
    )


def _call(body: Payload) -> Payload:
    """Return SWML's call object: ``call`` in a documented body, ``SWMLCall`` if ``swaig_post_swml_vars`` is on."""
    return values.mapping(body.get("call")) or values.mapping(body.get("SWMLCall"))


def _occurred_at(body: Payload, kind: CallKind) -> datetime | None:
    """Return the time of a start or an end. No body says when a function was called."""
    names = {CallKind.STARTED: ("call_start_date",), CallKind.ENDED: ("call_end_date", "ai_end_date")}.get(kind, ())
    return next(filter(None, (times.microseconds(body.get(name)) for name in names)), None)


def _about(body: Payload, call: Payload, channel: Payload) -> Iterator[tuple[str, object]]:
    yield from values.picked(body, _ATTRIBUTES)
    yield "caller_name", channel.get("caller_id_name")
    yield from values.picked(call, _OF_THE_CALL)
    yield from values.sip_headers(call.get("headers"))
