"""Decides whether the sessions of an orphaned recipe must be reported lost, and reads and writes its headers. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime

from consumer.broker.message import Headers
from consumer.calls.cluster.ended_calls import OpenedBy
from consumer.calls.routes import CALL_KEY
from schemas import headers
from schemas.ids import WorkerId
from schemas.internal import Recipe


def is_untold(recipe: Recipe, given: Headers, inbox_of: WorkerId | None = None) -> bool:
    """Return whether the recipe's own worker counted as dead, and its sessions may not be reported as lost.

    ``given`` are the headers of its message, and ``inbox_of`` is the worker whose inbox has given it up since. Whoever
    receives such a recipe first reports its sessions, even if the worker has come back: a placer may have reported them
    and have lost its link before the recipe said so. If another inbox gave the recipe up, it was on its way there, and
    the worker that sent it has reported the sessions. So has a worker that returned it: its own worker when it left, or
    one that found them unreported. If the recipe has come back to its own worker, this one reported their ends.
    """
    told = headers.LOST in given or headers.RETURNS in given or inbox_of == recipe.worker_id
    return not told and recipe.worker_id == given.get(headers.ORPHAN_OF)


def opened_by(recipe: Recipe, given: Headers) -> OpenedBy:
    """Return the message that the recipe's sessions go back to.

    ``given`` are the headers of the recipe's message. Older workers do not write there when a start was sent. Then it
    is the time at which the start opened the first session, and nothing is known of an explicit request.
    """
    for name, commanded in ((headers.COMMANDED, True), (headers.STARTED, False)):
        if name in given:
            return OpenedBy(datetime.fromtimestamp(float(given[name]) / 1000, UTC), commanded)
    return OpenedBy(min((one.created_at for one in recipe.sessions if CALL_KEY in one.metadata), default=None))


def opening_header(opened: OpenedBy) -> dict[str, str]:
    """Return the header of a recipe that says what its sessions go back to; none if it is not known."""
    if opened.sent is None:
        return {}
    name = headers.COMMANDED if opened.commanded else headers.STARTED
    return {name: headers.milliseconds(opened.sent.timestamp())}


def which_restored(recipe: Recipe, given: Headers) -> list[bool]:
    """Return of each session of the recipe, in order, whether it is restored.

    ``given`` are the headers of the recipe's message. Older workers do not write it there. Then all count as restored
    if a worker has died with the call.
    """
    digits = str(given.get(headers.RESTORED, ""))
    if len(digits) != len(recipe.sessions):
        return [one.restores > 0 for one in recipe.sessions]
    return [digit == "1" for digit in digits]


def restored_header(restored: Iterable[bool]) -> dict[str, str]:
    """Return the header of a recipe that says of each session, in the recipe's order, whether it is restored."""
    return {headers.RESTORED: "".join("1" if one else "0" for one in restored)}
