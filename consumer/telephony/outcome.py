"""What a translation comes to, and what a translator is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from schemas.calls import CallEvent

Payload: TypeAlias = Mapping[str, object]
"""A decoded body: a JSON object or the fields of a form."""


@dataclass(frozen=True, slots=True)
class Translated:
    """The body says something about the life of a call."""

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
    """Nothing that a translator can use; ``problem`` is one sentence for whoever looks into the parking lot."""

    problem: str


Translation: TypeAlias = Translated | Ignored | Unrecognised


class Unusable(Exception):
    """A body that is broken, or of a known shape without what is needed of it; the message says what is wrong.

    Stays inside this room: ``translate`` turns it into ``Unrecognised``.
    """


class Translator(Protocol):
    """One platform: a module of ``consumer.telephony.platforms``."""

    SOURCE: str

    def recognises(self, payload: Payload) -> bool:
        """Whether the body has this platform's shape; a few look-ups, no reading."""

    def translate(self, payload: Payload) -> Translated | Ignored:
        """What a recognised body says.

        Raises:
            Unusable: the call cannot be identified, or the body contradicts its own shape.
        """
