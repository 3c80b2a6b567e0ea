"""What the simulated broker needs of a clock, and how long things take on their way."""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Protocol

NEXT = 1e-9
"""How far apart (s) two things are that come one behind the other."""


class Timing(Protocol):
    """A clock that calls back. An ``owner`` is whose code a callback is: it may be stopped, or be no more."""

    def now(self) -> float:
        """Seconds on the monotonic clock."""
        ...

    def at(self, when: float, owner: Any, callback: Callable[..., Any], *args: Any) -> None:
        """Call back at that moment, in the order of moments."""
        ...

    def owner(self) -> Any:
        """Whose code runs now."""
        ...


class RealTime:
    """The clock of the running event loop."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def at(self, when: float, owner: Any, callback: Callable[..., Any], *args: Any) -> None:
        asyncio.get_running_loop().call_at(when, callback, *args)

    def owner(self) -> Any:
        return None


class Delays:
    """Milliseconds most of the time, and now and then much more."""

    def __init__(self, chance: random.Random, *, pace: float = 0.002, late: float = 0.002, latest: float = 0.4) -> None:
        self._random = chance.random
        self._pace = pace
        self._late = late
        self._latest = latest

    def next(self) -> float:
        """How long (s) the next thing takes."""
        drawn = self._random()
        if drawn < self._late:
            return self._latest * self._random()
        return self._pace * drawn * drawn * drawn + 0.0001


class NoDelays(Delays):
    """Everything happens at once, in order."""

    def __init__(self) -> None:
        super().__init__(random.Random(0))

    def next(self) -> float:
        return 0.0


class Pipe:
    """One direction of a connection: in order, until it is cut; what would arrive after that is lost."""

    def __init__(self, timing: Timing, delays: Delays, owner: Any) -> None:
        self._timing = timing
        self._delays = delays
        self._owner = owner
        self._last = 0.0
        self._cut_at = float("inf")

    def send(self, callback: Callable[..., Any], *args: Any) -> None:
        """Have the other side called."""
        when = self._timing.now() + self._delays.next()
        if when < (soonest := self._last + NEXT):
            when = soonest
        self._last = when
        if when < self._cut_at:
            self._timing.at(when, self._owner, self._arrive, when, callback, args)

    def _arrive(self, when: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if when < self._cut_at:
            callback(*args)

    def hold(self, until: float) -> None:
        """Let what is sent from now on arrive at that moment, or later."""
        self._last = max(self._last, until)

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through, now or soon."""
        return self._cut_at < float("inf")

    def cut(self, when: float) -> None:
        """Let nothing through from that moment on."""
        self._cut_at = min(self._cut_at, when)
