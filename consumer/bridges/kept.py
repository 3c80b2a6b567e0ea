"""The events that a bridge keeps for the broker. When there are too many, outdated ones are dropped first."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from consumer.broker.message import Message
from schemas.calls import CallId, CallKind

ROOM = 10
"""The share of the limit that is freed when there is no room, because a search at every event would be slow."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A waiting event. ``first`` marks one before which no event of its call was published."""

    message: Message
    call_id: CallId | None
    kind: CallKind | None
    first: bool = False
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The dropped events: of calls that were over, of progress that a later event replaces, and lost ones."""

    over: int
    needless: int
    lost: int
    since: datetime
    until: datetime


class Kept:
    """A queue of at most ``limit`` events."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Waiting:
        """Remove and return the oldest event."""
        return self._waiting.popleft()

    def put(self, one: Waiting) -> LeftOut | None:
        """Keep an event. Return the events that were dropped to make room."""
        self._waiting.append(one)
        return self._make_room() if len(self._waiting) > self._limit else None

    def _make_room(self) -> LeftOut:
        before = self._waiting
        still = _of_calls_that_go_on(before)
        over, needed = len(before) - len(still), _needed(still)
        needless = len(still) - len(needed)
        lost = max(0, len(needed) - (self._limit - self._limit // ROOM))
        self._waiting = deque(islice(needed, lost, None))
        now = datetime.now(UTC)
        return LeftOut(over, needless, lost, before[0].at or now, before[-1].at or now)


def _of_calls_that_go_on(waiting: Iterable[Waiting]) -> list[Waiting]:
    """Return the events without those of calls that began and ended here, which no consumer can know."""
    waiting = list(waiting)
    begun = {one.call_id for one in waiting if one.first}
    over = {one.call_id for one in waiting if one.kind is CallKind.ENDED and one.call_id in begun}
    return [one for one in waiting if one.call_id is None or one.call_id not in over]


def _needed(waiting: list[Waiting]) -> list[Waiting]:
    """Return the events without progress that a later event of its call replaces."""
    last = {one.call_id: number for number, one in enumerate(waiting)}
    return [
        one
        for number, one in enumerate(waiting)
        if one.kind is not CallKind.PROGRESS or one.call_id is None or last[one.call_id] == number
    ]
