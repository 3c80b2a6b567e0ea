"""Decides what keeps a call recoverable: when to write or drop its recipe, and when to ask who owns it. Pure."""

from dataclasses import dataclass
from enum import Enum

from consumer.calls.owned_call import OwnedCall, Reason

CHECK_EVERY = 120.0
"""How often (s) the owner of a call is checked even without a lost link, to find misrouted messages."""

MISSING_AFTER = 15.0
"""How long (s) beyond the grace a recipe that the broker took back may take to return to a known owner."""


class Upkeep(Enum):
    """What keeps the call's recipe in line with its sessions."""

    WAIT = "wait"
    """Ends are not reported yet. The recipe stays until its owner has reported them."""
    WRITE_RECIPE = "write the recipe"
    """The recipe does not name the present sessions."""
    NOTHING = "nothing"
    """The recipe names the present sessions."""
    DROP_RECIPE = "drop the recipe"
    """There is no session to restore, and the call is owned because it rings or has ended."""
    KEEP_ANSWERS = "keep the answers"
    """There is no session to restore either, but a repeated tool call must find its answer.

    Or a request to a session that died must be told how.
    """
    RELEASE = "release the call"
    """Nothing is left to own."""


def upkeep_of(call: OwnedCall, *, has_answers: bool, leaving: bool) -> Upkeep:
    """Decide what the call needs now. ``has_answers``: a repeated tool call would get its answer."""
    if call.events.pending:
        return Upkeep.WAIT
    if call.sessions:
        return Upkeep.WRITE_RECIPE if call.recipe.dirty else Upkeep.NOTHING
    if call.tenure.reason in (Reason.ENDED, Reason.RINGING):
        return Upkeep.DROP_RECIPE
    if (call.tool_calls or has_answers or call.died) and not leaving:
        return Upkeep.KEEP_ANSWERS
    return Upkeep.RELEASE


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of checking a call."""

    ended_elsewhere: bool
    """The call has ended, and the worker that ended it could not reach us."""
    recipe_missing: bool
    """The broker took the recipe back, and neither we nor a placer gets it."""
    owner_in_doubt: bool
    """The owner of the call has to be asked for."""


def look_at(call: OwnedCall, *, now: float, grace: float, has_ended: bool) -> Findings:
    """Return what is wrong with a call ``now``. ``has_ended``: its end was reported after this worker took it."""
    lives = bool(call.sessions) or call.tenure.reason is Reason.RINGING
    is_given_back = bool(call.recipe.given_back)
    since_check = now - call.check.checked_at
    return Findings(
        ended_elsewhere=has_ended and lives and not call.tenure.has_ended,
        recipe_missing=is_given_back and not call.check.in_doubt and since_check >= grace + MISSING_AFTER,
        owner_in_doubt=call.check.in_doubt or (bool(call.sessions) and since_check >= CHECK_EVERY),
    )
