"""Asterisk without Wazo: ARI and AMI events of wazo-res-stasis-amqp, known and ignored.

Sources: wazo-platform/wazo-res-stasis-amqp ``integration_tests/suite/test_amqp.py``: ``{name, data: {type | Event}}``.
They are told apart so that they do not fill the parking lot. They open nothing: where they are published, Wazo's own
call events tell of the same channels under the same ids and with a direction, and these tell of internal ones too.
"""

from consumer.telephony import values
from consumer.telephony.outcome import Ignored, Payload, Translated

SOURCE = "asterisk"

_ARI_MARKS = ("asterisk_id", "application", "channel", "bridge", "endpoint", "playback")
_AMI_MARKS = ("Uniqueid", "Privilege", "Channel", "Device")


def recognises(payload: Payload) -> bool:
    """Whether this is an ARI or AMI event, bare or in the publisher's ``{name, data}``."""
    return _name(payload) is not None


def translate(payload: Payload) -> Translated | Ignored:
    """The name of the event."""
    return Ignored(SOURCE, values.what(_name(payload)))


def _name(payload: Payload) -> str | None:
    event = values.mapping(payload.get("data")) if "name" in payload else payload
    for name, marks in (("type", _ARI_MARKS), ("Event", _AMI_MARKS)):
        if isinstance(event.get(name), str) and any(mark in event for mark in marks):
            return values.text(event[name])
    return None
