"""Where the mistakes of ``mutations`` are found, and which of them another rule makes up for."""

from typing import NamedTuple

from tests.simulation import handling_mutations, mutations, session_mutations  # noqa: F401 - they name mistakes
from tests.simulation.orders import MENDED


class MadeUpFor(NamedTuple):
    """What makes up for a mistake: with both mistakes something breaks, and with either of them nothing."""

    by: str
    """The rule."""
    without: str
    """The mistake that takes the rule away."""
    where: str
    """The script or the order that shows it, as in ``WHERE``."""


HARMLESS = {
    "a worker is buried while it comes back": MadeUpFor(
        "its orphans are sent again first, and come to it if it is back by then",
        "a placer places what a dead worker had, without asking",
        "order: back while its calls are taken away",
    ),
    "the dead are not missed": MadeUpFor(
        "the placer asks for itself when the orphans come: it only takes longer",
        "a placer does not ask whether an owner lives",
        "order: killed when nobody wants anything",
    ),
    "what comes through a new binding is not held back": MadeUpFor(
        "it is returned, and the placer sends it on behind the rest",
        "whatever was returned is believed",
        "order: a message comes through the binding before the one placed",
    ),
    "a tool call is acknowledged after it was executed": MadeUpFor(
        "what a dead worker's inbox gave up is not executed, and what a live one has twice is not either",
        "a placer does with a tool call what it does with other messages",
        "order: killed while its tool call runs",
    ),
    "a tool call that comes again is executed again": MadeUpFor(
        "its owner knows it by its key, or by the message's id, and joins it to the first one",
        "an idempotency key is not remembered",
        "order: a tool call whose owner lost its acknowledgement",
    ),
    "who was away gets no requests any more": MadeUpFor(
        "the placer gets them, and sends them to its inbox",
        "a placer does not send a request on to the inbox",
        "comes back",
    ),
    "who is given its call again waits for its recipes": MadeUpFor(
        "it stops waiting when a recipe is missing for too long",
        "a recipe that does not come back is waited for",
        "order: placed where it was when its recipe was told lost",
    ),
}
"""Mistakes that are found only together with another one, and which."""

WHERE: dict[str, str] = {
    "a recipe behind a command restores nothing": "meanwhile",
    "what is lost is not told as created": "killed telling",
    "a standstill is not noticed": "away twice",
    "a call is given back to a worker beside its new owner": "comes back",
    "the placer's tombstone left out": "early",
    "the owner's tombstone left out": "end breaks",
    "an end is told to nobody": "end breaks",
    "an end is acknowledged before its owner has answered": "end breaks",
    "a dead worker's binding stays": "",
    "a released call's binding stays": "",
    "a placer places what another had before, without asking": "placers change",
    "who was away does not ask for its calls": "comes back",
    "who was away does not give up what is another's": "comes back",
    "a recipe is acknowledged when it comes": "killed telling",
    "a recipe is never taken away": "killed telling",
    "who was cut off tells its ends at once": "comes back",
    "a recipe that RabbitMQ has back is not waited for": "comes back",
    "what was told lost goes on with its life": "comes back",
    "created is told before the recipe is written": "killed telling",
    "two ends are told of each life": "early",
    "a restored session has lost its metadata": "placers change",
    "a restored session has the timeout of its service": "meanwhile",
    "an idempotency key is not remembered": "tool breaks",
    "a newcomer hears no ends": "order: closed while another worker had opened it cut off",
    "a worker says that it has told of one recipe more": "order: a recipe whose confirmation is lost",
    **{mistake: f"order: {order}" for order, mistake in MENDED.items()},
    **{mistake: made_up_for.where for mistake, made_up_for in HARMLESS.items()},
}
"""The script, or the order, whose worlds find a mistake soonest; ``""`` is any world of the swarm."""


def made_with(name: str) -> tuple[str, ...]:
    """Return the mistakes that are made together to find the one of that name."""
    return (name, HARMLESS[name].without) if name in HARMLESS else (name,)
