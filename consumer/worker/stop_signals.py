"""Decides what a signal asks of a worker: to leave, to hurry, or nothing new."""

import signal
from enum import Enum, auto

REPEATED = 5.0
"""How long (s) a further SIGTERM counts as a repetition. Heroku may send it twice to all processes of a dyno."""

KEYSTROKE = 0.2
"""How long (s) a further SIGINT counts as the same keystroke. Terminal and parent process may each send one."""


class Wish(Enum):
    """What a signal asks for."""

    LEAVE = auto()
    HURRY = auto()
    SAME = auto()


class StopSignals:
    """Remembers the signals of a worker, and distinguishes a new wish from a repeated one."""

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
