"""Forwards a message to the next hop. Some headers stay with it, others are valid for one hop only."""

import dataclasses
import time
from typing import Any, Final

from consumer.broker.message import Message
from schemas import headers

_MARKS: Final = frozenset(
    {
        headers.PLACEMENT,
        headers.BELIEVED,
        headers.DISOWNED,
        headers.RETURNED,
        headers.REFUSED,
        headers.RESENT,
        headers.LATE,
        headers.ORPHAN_OF,
    }
)
"""The headers that are valid for one hop only."""


def onward(message: Message, marks: dict[str, Any]) -> Message:
    """Return ``message`` for the next hop: without the marks of the last hop, and with those of this one."""
    again = message.again()
    kept = {name: value for name, value in again.headers.items() if name not in _MARKS}
    if message.expiration is not None:
        kept.setdefault(headers.DEADLINE, str(round(time.time() * 1000) + message.expiration))
    return dataclasses.replace(again, headers=kept | marks)
