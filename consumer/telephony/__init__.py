"""Platform events in, call events out; pure, and knows neither broker nor MCP.

``translate`` turns the body of whatever a telephony platform sends, or our own normalised event, into ``Translated``
with a ``schemas.calls.CallEvent``, ``Ignored`` for what does not concern the life of a call, or ``Unrecognised`` with
the reason why it is parked. ``looks`` tells what each translator thinks of a body.
"""

from consumer.telephony.outcome import Ignored, Translated, Translation, Unrecognised
from consumer.telephony.registry import PLATFORMS, SOURCES, Look, looks, translate

__all__ = [
    "PLATFORMS",
    "SOURCES",
    "Ignored",
    "Look",
    "Translated",
    "Translation",
    "Unrecognised",
    "looks",
    "translate",
]
