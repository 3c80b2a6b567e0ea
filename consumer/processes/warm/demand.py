"""Calculates how many processes should wait for calls, without a clock or a process of its own."""

from math import exp, inf, sqrt

from consumer.processes.service import Warm

MEMORIES = (3.0, 60.0)
"""Seconds over which arrivals are counted: the short time shows a burst at once, the long one the hour's rate."""


class Demand:
    """Arrivals and start times of one service. Every ``now`` is in seconds on one monotonic clock."""

    def __init__(self, warm: Warm) -> None:
        self._warm = warm
        self._levels = dict.fromkeys(MEMORIES, 0.0)
        self._last = -inf
        self._start_time = 0.0

    def arrived(self, now: float) -> None:
        """Count a request for a client."""
        self._levels = {memory: level + 1.0 for memory, level in self._faded(now).items()}
        self._last = now

    def took(self, seconds: float) -> None:
        """Note how long a warm start took, from the decision until a call could use the client."""
        self._start_time = (self._start_time + seconds) / 2 if self._start_time else seconds

    def wanted(self, now: float) -> int:
        """Return how many should wait: the arrivals during one start, plus twice their spread.

        The spread of independent arrivals is the square root of their number.
        """
        rate = max(level / memory for memory, level in self._faded(now).items())
        expected = rate * self._start_time
        return min(self._warm.max, max(self._warm.min, round(expected + 2 * sqrt(expected))))

    def _faded(self, now: float) -> dict[float, float]:
        return {memory: level * exp((self._last - now) / memory) for memory, level in self._levels.items()}
