"""A clock that stands still until somebody lets time pass: what takes no time happens at once, in its order."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

AT_ONCE = 0.001
"""What comes within this time (s) of the last thing is not waited for."""


class SteppedTime:
    """The simulated broker's time beside a real one: it passes when the real one's has, and not by itself."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._due: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._number = count()
        self._runs = False

    def now(self) -> float:
        return self._now

    def owner(self) -> Any:
        return None

    def at(self, when: float, owner: Any, callback: Callable[..., Any], *args: Any) -> None:
        heapq.heappush(self._due, (when, next(self._number), callback, args))
        self._wake()

    def advance(self, until: float) -> None:
        """Let time pass; what happens meanwhile happens in its order, soon."""
        while self._due and self._due[0][0] <= until:
            self._next()
        self._now = max(self._now, until)
        self._wake()

    def _wake(self) -> None:
        if not self._runs and self._due and self._due[0][0] <= self._now + AT_ONCE:
            self._runs = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._runs = False
        if self._due and self._due[0][0] <= self._now + AT_ONCE:
            self._next()
        self._wake()

    def _next(self) -> None:
        when, _, callback, args = heapq.heappop(self._due)
        self._now = max(self._now, when)
        callback(*args)

    @property
    def is_still(self) -> bool:
        """Whether nothing happens until time passes."""
        return not self._due or self._due[0][0] > self._now + AT_ONCE
