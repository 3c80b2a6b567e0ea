"""What a signal asks of a worker: to leave, to hurry, or nothing that was not asked before."""

import signal
from enum import Enum, auto

REPEATED = 5.0
"""So long (s) a further SIGTERM is the same wish: Heroku sends it to all processes of a dyno, and may do so twice."""

KEYSTROKE = 0.2
"""So long (s) a further SIGINT is the same keystroke: the terminal sends one, and what started us may send another."""


class Wish(Enum):
    """What to do about a signal."""

    LEAVE = auto()
    HURRY = auto()
    SAME = auto()


class StopSignals:
    """Remembers what a worker was asked, and tells a new wish from one that is only repeated."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def received(self, number: int, now: float) -> Wish:
        """Return what SIGTERM or SIGINT asks for at the time ``now`` (s)."""
        if self._last is None:
            self._last = number, now
            return Wish.LEAVE
        before, at = self._last
        repeated = KEYSTROKE if number == before == signal.SIGINT else REPEATED if number == signal.SIGTERM else 0
        if now - at < repeated:
            return Wish.SAME
        self._last = number, now
        return Wish.HURRY
