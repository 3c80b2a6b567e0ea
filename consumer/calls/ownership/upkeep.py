"""Decides what keeps a call recoverable: when to write or drop its recipe, and when to ask who owns it. Pure."""

from dataclasses import dataclass
from enum import Enum

from consumer.calls.owned_call import OwnedCall, Reason

CHECK_EVERY = 120.0
"""How often (s) a call is asked for though we were never away: what misleads its messages is found out."""

MISSING_AFTER = 15.0
"""How long (s) beyond the grace a recipe that the broker has had back may take to one who is known to own the call.
Longer, and the broker keeps it back for minutes (see the topology), or has lost it: a new one is written."""


class Upkeep(Enum):
    """What keeps the broker's recipe of a call in line with its sessions."""

    WAIT = "wait"
    """Ends are not told yet: the recipe stays until its owner has told of them."""
    WRITE_RECIPE = "write the recipe"
    """The sessions are not those that the recipe names."""
    NOTHING = "nothing"
    """The recipe names the sessions as they are."""
    DROP_RECIPE = "drop the recipe"
    """There is no session to restore, and the call is owned because it rings or has ended."""
    KEEP_ANSWERS = "keep the answers"
    """There is no session either, but a repeated tool call must find the answer that was given."""
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
    if (call.tool_calls or has_answers) and not leaving:
        return Upkeep.KEEP_ANSWERS
    return Upkeep.RELEASE


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look at a call has found."""

    ended_elsewhere: bool
    """The call has ended, and the worker that closed it did not reach us."""
    recipe_missing: bool
    """The broker has had the recipe back, and neither we nor a placer gets it."""
    owner_in_doubt: bool
    """It has to be asked whether the call is ours."""


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
