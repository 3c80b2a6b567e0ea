"""The names of the ``x-mcp-*`` headers of messages from clients, placers and owners."""

from typing import Final

PLACEMENT: Final = "x-mcp-placement"
"""``<placer>/<number>``: the call has just been bound to the inbox that this message goes to."""

BELIEVED: Final = "x-mcp-believed"
"""``<placer>/<number>``: the placement by which this worker owns the call, as far as the placer knows."""

DISOWNED: Final = "x-mcp-disowned"
"""The placement by which a returned message had come. A later placement may have made that worker the owner."""

RETURNED: Final = "x-mcp-returned"
"""The worker that received the message and does not own the call, or does not any more."""

RETURNS: Final = "x-mcp-returns"
"""How often the message was returned. The first return may only mean that it arrived before the placed message."""

FOR_GOOD: Final = 2
"""The number of returns after which the placer believes that the worker does not own the call."""

REFUSED: Final = "x-mcp-refused"
"""The worker that the call was placed on, and that had no room."""

RESENT: Final = "x-mcp-resent"
"""The placer has sent the message to the sessions exchange a second time. If the call had an owner, it would get it."""

DEATHS: Final = "x-mcp-deaths"
"""How many workers died with this message in their inbox. The header stays with the message."""

LATE: Final = "x-mcp-late"
"""The message was an orphan, so messages that were sent later may have arrived before it."""

ORPHAN_OF: Final = "x-mcp-orphan-of"
"""The dead worker whose inbox gave the message up. It replaces ``x-death``, which is lost when a message is resent."""

LOST: Final = "x-mcp-lost"
"""The sessions of this recipe have been reported as lost. The header stays with the message."""

STARTED: Final = "x-mcp-started"
"""When (ms since the epoch) the start was sent that the sessions of this recipe go back to.

This is not a field of the recipe, because older workers read a recipe strictly.
"""

COMMANDED: Final = "x-mcp-commanded"
"""When (ms since the epoch) the explicit request came that the sessions of this recipe go back to, instead of a start.

An earlier end of the call does not bar them.
"""

RESTORED: Final = "x-mcp-restored"
"""Which sessions of this recipe are restored: in the recipe's order, ``1`` for one that is, and else ``0``."""

ADMISSION: Final = "x-mcp-admission-until"
"""When (ms since the epoch) a start that found no room is rejected; set by the worker that saw it first."""

DEADLINE: Final = "x-mcp-deadline"
"""When (ms since the epoch) the caller of a request stops waiting. It replaces ``expiration`` on further hops."""


def milliseconds(moment: float) -> str:
    """Return a moment (s since the epoch) in milliseconds, as in headers."""
    return str(round(moment * 1000))
