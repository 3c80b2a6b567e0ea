"""The interface of a connection to an Asterisk, for ARI and AMI."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from schemas.base import Json

OPEN_TIMEOUT = 10.0
"""How long (s) connecting and logging in may take."""

ASK_TIMEOUT = 10.0
"""How long (s) an answer of the PBX may take."""

MISSED = "unknown: it ended while the bridge was cut off"
"""The text of the cause in the event of an end that the bridge has missed."""


class PbxLost(Exception):
    """The connection is over; another one may succeed."""


class PbxUnreachable(PbxLost):
    """No connection could be made; the next attempt may succeed."""


class PbxRefused(Exception):
    """The PBX refuses the login, and will not accept it later. The message says why, and what to do."""


class CannotTell(Exception):
    """The PBX cannot list the live channels; the message says why."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An event in two forms: as it is published, and as it is parsed."""

    body: bytes
    payload: Json


class Pbx(Protocol):
    """One connection, opened once and closed once. Answers arrive only while ``events`` is being read."""

    knows_starts: bool
    """Whether each live channel concerns the bridge, so that an unknown one is a missed start."""

    async def open(self) -> None:
        """Connect and log in.

        Raises:
            PbxRefused: wrong credentials.
            PbxUnreachable: otherwise.
        """
        ...

    def events(self) -> AsyncIterator[Heard]:
        """Iterate over every event of the PBX from now on.

        Raises:
            PbxLost: the connection is over; this never ends otherwise.
            PbxRefused: another program has connected in place of this bridge.
        """
        ...

    async def living(self) -> list[Json]:
        """Return the first event of each live channel, as far as the PBX still has it.

        Raises:
            CannotTell: it refuses the question, or does not answer.
        """
        ...

    async def follow(self, start: Json) -> bool:
        """Subscribe to the end of a channel. Return whether the PBX will report it."""
        ...

    async def ping(self) -> None:
        """Return when the PBX has answered."""
        ...

    async def close(self) -> None:
        """Hang up; idempotent, and bounded."""
        ...

    def changed(self, start: Json, at: datetime) -> Json:
        """Return the event that would have reported a channel's present state."""
        ...

    def ended(self, last: Json, at: datetime) -> Json:
        """Return the event that would have reported an end, from the last known event of the channel."""
        ...
