"""Decides whether the sessions of an orphaned recipe must be reported lost, and when its call started. Pure."""

from datetime import UTC, datetime

from consumer.broker.message import Headers
from consumer.calls.routes import CALL_KEY
from schemas import headers
from schemas.internal import Recipe


def is_untold(recipe: Recipe, given: Headers) -> bool:
    """Return whether the recipe's own worker counted as dead, and its sessions may not be reported as lost.

    ``given`` are the headers of its message. Whoever receives such a recipe first reports its sessions, even if the
    worker has come back: a placer may have reported them and have lost its link before the recipe said so. If another
    inbox gave the recipe up, it was on its way there, and the worker that sent it has reported the sessions. So has a
    worker that returned it: its own worker when it left, or one that found them unreported.
    """
    told = headers.LOST in given or headers.RETURNS in given
    return not told and recipe.worker_id == given.get(headers.ORPHAN_OF)


def started_at(recipe: Recipe, given: Headers) -> datetime | None:
    """When the start was sent that the recipe's sessions go back to. None if a command opened them all.

    ``given`` are the headers of its message. Older workers do not write there when the start was sent. Then it is the
    time at which the start opened the first session.
    """
    opened = [one.created_at for one in recipe.sessions if CALL_KEY in one.metadata]
    if opened and headers.STARTED in given:
        return datetime.fromtimestamp(float(given[headers.STARTED]) / 1000, UTC)
    return min(opened, default=None)
