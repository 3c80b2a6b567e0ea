"""Platform events in, call events out; pure, and knows neither broker nor MCP.

``translate`` turns the body of whatever a telephony platform sends (SignalWire RELAY, SWML, cXML, SWAIG, FreeSWITCH
mod_amqp, Kazoo, Wazo, or our own normalised event) into ``Translated`` with a ``schemas.calls.CallEvent``,
``Ignored`` for what does not concern the life of a call, or ``Unrecognised`` with the reason why it is parked.
"""

from consumer.telephony.outcome import Ignored, Translated, Translation, Unrecognised
from consumer.telephony.registry import SOURCES, translate

__all__ = ["SOURCES", "Ignored", "Translated", "Translation", "Unrecognised", "translate"]
