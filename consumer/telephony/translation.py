"""The possible results of a translation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from schemas.calls import CallEvent

Payload: TypeAlias = Mapping[str, object]
"""A decoded body: a JSON object or the fields of a form."""


@dataclass(frozen=True, slots=True)
class Translated:
    """The body reports something about the life of a call."""

    event: CallEvent


@dataclass(frozen=True, slots=True)
class Ignored:
    """A known event that does not concern the life of a call.

    ``what`` names the kind of event (``calling.call.play``, ``HEARTBEAT``), never a value of it, so that it can
    label a counter.
    """

    source: str
    what: str


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """A body that no translator can use; ``problem`` is one sentence for readers of the dead-letter queue."""

    problem: str


Translation: TypeAlias = Translated | Ignored | Unrecognised


class Unusable(Exception):
    """A body that is broken, or has a known shape but lacks a required part. The message says what is wrong.

    Stays inside this room: ``translate`` turns it into ``Unrecognised``.
    """
