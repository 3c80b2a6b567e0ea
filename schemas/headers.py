"""The names of the ``x-mcp-*`` headers that messages of clients, placer and owners carry."""

from typing import Final

PLACEMENT: Final = "x-mcp-placement"
"""``<placer>/<number>``: the call has just been bound to the inbox that this message goes to."""

BELIEVED: Final = "x-mcp-believed"
"""``<placer>/<number>``: the placement by which the placer believes the call to be owned here."""

DISOWNED: Final = "x-mcp-disowned"
"""The placement that a message came back by; one that has been made since says something else."""

RETURNED: Final = "x-mcp-returned"
"""The worker that got the message and does not own the call (any more)."""

RETURNS: Final = "x-mcp-returns"
"""How often the message has been returned. Once may only mean that it overtook the one that was placed."""

FOR_GOOD: Final = 2
"""As many returns as it takes to be believed."""

REFUSED: Final = "x-mcp-refused"
"""The worker that the call was placed on and that had no room after all."""

RESENT: Final = "x-mcp-resent"
"""Sent through the sessions exchange a second time, so that it would have reached an owner if there were one."""

DEATHS: Final = "x-mcp-deaths"
"""How many workers died with this message in their inbox; stays with the message."""

LATE: Final = "x-mcp-late"
"""The message has been an orphan: what was sent after it may have come before it."""

ORPHAN_OF: Final = "x-mcp-orphan-of"
"""The dead worker whose inbox gave the message up; stands for ``x-death``, which a message that is sent again loses."""

LOST: Final = "x-mcp-lost"
"""The sessions of this recipe have been reported lost; stays with the message."""

ADMISSION: Final = "x-mcp-admission-until"
"""When (ms since the epoch) a start that found no room is rejected; set by the worker that saw it first."""

DEADLINE: Final = "x-mcp-deadline"
"""When (ms since the epoch) the caller of a request stops waiting; stands for ``expiration`` on further hops."""


def milliseconds(moment: float) -> str:
    """A moment (s since the epoch) as headers have it."""
    return str(round(moment * 1000))
