"""Translates events of telephony platforms into call events. Pure; depends on neither the broker nor MCP.

``translate`` turns the body of whatever a telephony platform sends, or our own normalised event, into ``Translated``
with a ``schemas.calls.CallEvent``, ``Ignored`` for what does not concern the life of a call, or ``Unrecognised`` with
the reason why it becomes a dead letter. ``looks`` returns each translator's verdict on a body.
"""

from consumer.telephony.named_call import named_call
from consumer.telephony.registry import PLATFORMS, SOURCES, Verdict, looks, translate
from consumer.telephony.translation import Ignored, Translated, Translation, Unrecognised

__all__ = [
    "PLATFORMS",
    "SOURCES",
    "Ignored",
    "Translated",
    "Translation",
    "Unrecognised",
    "Verdict",
    "looks",
    "named_call",
    "translate",
]
