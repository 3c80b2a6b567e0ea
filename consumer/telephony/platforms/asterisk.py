"""Asterisk itself: ARI, AMI, and its call event logging over AMQP (CEL).

Sources: asterisk/asterisk ``rest-api/api-docs/events.json``, ``main/stasis_channels.c``; docs.asterisk.org AMI events
Newchannel, Newstate, Hangup; ``cel_amqp.c``, ``cdr_amqp.c``; wazo-platform/wazo-res-stasis-amqp for ``{name, data}``.

Each channel is a call. ARI names no parent; in AMI and CEL it is the oldest channel of the call (``Linkedid``). Nothing
says which direction a channel has. ``StasisEnd`` is progress: the channel leaves the application, and may go on in the
dialplan or have been moved. Its real end, ``ChannelDestroyed``, is sent to its subscribers.

Events that wazo-res-stasis-amqp and wazo-amid wrap into ``{name, data}`` are recognised but open nothing, because Wazo
publishes call events for the same channels, and the wrapped ones also report internal channels. ``unwrapped`` takes the
wrapping off, for an exchange that is configured as Asterisk's own.
"""

import re
from collections.abc import Iterator

from consumer.telephony import times, values
from consumer.telephony.marks import Mark, begins, either, has, is_object, is_text, lacks
from consumer.telephony.platforms.channel_states import CHANNEL_STATES, OF_WAZO
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind

SOURCE = "asterisk"

_ARI_TYPES = (
    "Application", "Bridge", "Channel", "Contact", "Device", "Dial", "Endpoint", "Missing", "Peer", "Playback", "REST",
    "Recording", "Stasis", "TextMessage",
)  # fmt: skip
_ARI_OBJECTS = ("channel", "bridge", "endpoint", "playback", "recording", "peer", "caller", "device_state")
_AMI_NAMES = ("Event", "event", "EVENT")
_AMI_MARKS = frozenset({"uniqueid", "privilege", "destuniqueid"})
_WRAPPED_AMI_MARKS = _AMI_MARKS | {"channel", "device"}

_OF_ARI = (
    begins("type", *_ARI_TYPES),
    either(is_text("asterisk_id"), is_text("application"), is_object(*_ARI_OBJECTS)),
)


def _ami_event(body: Payload, marks: frozenset[str] = _AMI_MARKS) -> str | None:
    """Return the event's name. Bridges send its keys, and some of its values, in lower case."""
    name = next((body[key] for key in _AMI_NAMES if key in body), None)
    return name if isinstance(name, str) and any(key.casefold() in marks for key in body) else None


def _is_wrapped(body: Payload) -> bool:
    data = body.get("data")
    return isinstance(data, dict) and (
        all(mark.holds(data) for mark in _OF_ARI) or _ami_event(data, _WRAPPED_AMI_MARKS) is not None
    )


SHAPES = (
    _OF_ARI,
    (
        Mark(
            "it is not an AMI event: it has neither Uniqueid nor Privilege",
            lambda body: _ami_event(body) is not None,
            _AMI_NAMES,
        ),
        lacks("CallUUID"),
    ),
    (has("event_name"), has("unique_id"), has("linked_id")),
    (has("dcontext"), has("dstchannel"), has("linkedid")),
    (has("data"), has("name"), lacks(*OF_WAZO), Mark("'data' is not an event of ARI or AMI", _is_wrapped)),
)

ARI_EVENTS = {
    "ChannelCreated": CallKind.STARTED,
    "StasisStart": CallKind.STARTED,
    "ChannelStateChange": CallKind.PROGRESS,
    "StasisEnd": CallKind.PROGRESS,
    "ChannelDestroyed": CallKind.ENDED,
}
AMI_EVENTS = {"newchannel": CallKind.STARTED, "newstate": CallKind.PROGRESS, "hangup": CallKind.ENDED}
CEL_EVENTS = {
    "CHAN_START": CallKind.STARTED,
    "ANSWER": CallKind.PROGRESS,
    "HANGUP": CallKind.ENDED,
    "CHAN_END": CallKind.ENDED,
}

_NO_NUMBER = re.compile(r"[shit]|<unknown>", re.IGNORECASE)
"""Extensions of the dialplan itself (start, hangup, invalid, timeout), and an unknown caller."""

_OF_ARI_CHANNEL = (("channel", "name"), ("sip_call_id", "protocol_id"), ("account_code", "accountcode"))
_OF_ARI_EVENT = (
    ("event", "type"), ("application", "application"), ("asterisk_id", "asterisk_id"), ("cause_text", "cause_txt"),
    ("tech_cause", "tech_cause"), ("arguments", "args"),
)  # fmt: skip
_OF_AMI = (
    ("event", "event"), ("channel", "channel"), ("channel_state", "channelstatedesc"), ("caller_name", "calleridname"),
    ("context", "context"), ("account_code", "accountcode"), ("linked_id", "linkedid"), ("cause_text", "cause-txt"),
    ("tech_cause", "techcause"),
)  # fmt: skip
_OF_CEL = (
    ("event", "event_name"), ("channel", "channel"), ("context", "context"), ("account_code", "account_code"),
    ("linked_id", "linked_id"),
)  # fmt: skip


def unwrapped(payload: Payload) -> Payload:
    """Return the event without the ``{name, data}`` around it."""
    wrapped = SHAPES[-1]
    return values.mapping(payload["data"]) if all(mark.holds(payload) for mark in wrapped) else payload


def translate(payload: Payload) -> Translated | Ignored:
    """Translate an event of a channel."""
    if "name" in payload and "data" in payload:
        return Ignored(SOURCE, values.what(values.text(payload["name"])))
    if "event_name" in payload:
        return _cel(payload)
    if "dcontext" in payload:
        return Ignored(SOURCE, "CDR")
    return _ari(payload) if "type" in payload and _ami_event(payload) is None else _ami(payload)


def _ari(event: Payload) -> Translated | Ignored:
    name = str(event["type"])
    kind = ARI_EVENTS.get(name)
    if kind is None:
        return Ignored(SOURCE, values.what(name))
    channel = values.mapping(event.get("channel"))
    caller = values.mapping(channel.get("caller"))
    dialplan = values.mapping(channel.get("dialplan"))
    state = values.first(channel, "state")
    return values.translated(
        SOURCE,
        kind,
        values.call_id(channel, "id", "channel."),
        from_=_number(caller.get("number")),
        to=_number(dialplan.get("exten")),
        end_reason=event.get("cause"),
        occurred_at=times.iso(event.get("timestamp")),
        state=_state(state),
        about=_about_ari(event, channel, caller, dialplan),
    )


def _about_ari(event: Payload, channel: Payload, caller: Payload, dialplan: Payload) -> Iterator[tuple[str, object]]:
    yield from values.picked(event, _OF_ARI_EVENT)
    yield from values.picked(channel, _OF_ARI_CHANNEL)
    yield "channel_state", channel.get("state")
    yield "caller_name", caller.get("name")
    yield "context", dialplan.get("context")


def _ami(event: Payload) -> Translated | Ignored:
    """Translate an event of the manager.

    Names are compared without case, because ``Uniqueid`` and ``UniqueID`` both occur.
    """
    fields = {name.casefold(): value for name, value in event.items()}
    name = values.text(fields["event"]) or ""
    kind = AMI_EVENTS.get(name.casefold())
    if kind is None:
        return Ignored(SOURCE, values.what(name))
    return values.translated(
        SOURCE,
        kind,
        values.call_id(fields, "uniqueid"),
        from_=_number(fields.get("calleridnum")),
        to=_number(fields.get("exten")) or _number(fields.get("connectedlinenum")),
        end_reason=fields.get("cause"),
        parent=values.parent_id(fields, "linkedid"),
        occurred_at=times.seconds(fields.get("timestamp")),
        state=_state(values.first(fields, "channelstatedesc")),
        about=values.picked(fields, _OF_AMI),
    )


def _cel(event: Payload) -> Translated | Ignored:
    """Translate a record of call event logging. ``HANGUP`` and ``CHAN_END`` both come; only the former has a cause."""
    name = values.text(event["event_name"]) or ""
    kind = CEL_EVENTS.get(name)
    if kind is None:
        # a user-defined event is called what somebody wrote into a dialplan, which is no name for a counter
        return Ignored(SOURCE, values.what("CEL", name) if name in _CEL_NAMES else "CEL user-defined")
    caller = values.mapping(event.get("caller_id"))
    return values.translated(
        SOURCE,
        kind,
        values.call_id(event, "unique_id"),
        from_=_number(caller.get("num")),
        to=_number(event.get("extension")) or _number(caller.get("dnid")),
        end_reason=values.mapping(event.get("extra")).get("hangupcause"),
        parent=values.parent_id(event, "linked_id"),
        occurred_at=times.iso(event.get("event_time")),
        state={CallKind.STARTED: "created", CallKind.PROGRESS: "answered"}.get(kind),
        about=(*values.picked(event, _OF_CEL), ("caller_name", caller.get("name"))),
    )


_CEL_NAMES = frozenset({
    "LINKEDID_END", "BRIDGE_ENTER", "BRIDGE_EXIT", "APP_START", "APP_END", "PARK_START", "PARK_END", "BLINDTRANSFER",
    "ATTENDEDTRANSFER", "PICKUP", "FORWARD", "LOCAL_OPTIMIZE", "LOCAL_OPTIMIZE_BEGIN", "STREAM_BEGIN", "STREAM_END",
    "DTMF",
})  # fmt: skip


def _number(value: object) -> str | None:
    found = values.text(value)
    return None if found is None or _NO_NUMBER.fullmatch(found) else found


def _state(state: str | None) -> str | None:
    return CHANNEL_STATES.get((state or "").casefold())
