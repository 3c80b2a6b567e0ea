"""Decides whether the sessions of an orphaned recipe must be reported lost, and when its call started. Pure."""

from datetime import datetime

from consumer.broker.message import Headers
from consumer.calls.routes import CALL_KEY
from schemas import headers
from schemas.ids import WorkerId
from schemas.internal import Recipe


def is_untold(recipe: Recipe, given: Headers, dead: WorkerId | None = None) -> bool:
    """Return whether the inbox of the recipe's own worker gave it up, and its sessions are not reported as lost.

    ``given`` are the headers of its message, and ``dead`` is the worker whose inbox RabbitMQ says gave it up. If
    another inbox gave the recipe up, it was on its way there, and the worker that sent it has reported the sessions. So
    has a worker that returned it: its own worker when it left, or one that found them unreported.
    """
    told = headers.LOST in given or headers.RETURNS in given
    return not told and recipe.worker_id in (dead, given.get(headers.ORPHAN_OF))


def started_at(recipe: Recipe) -> datetime | None:
    """When a start opened the first of the recipe's sessions. None if a command opened them all."""
    return min((one.created_at for one in recipe.sessions if CALL_KEY in one.metadata), default=None)
