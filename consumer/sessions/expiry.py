"""One timer for all sessions. It fires when the next session is due."""

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import Generic

from consumer.sessions.ordered_deadlines import Deadlines
from consumer.sessions.session import P, Session
from schemas.events import EndReason

_SHORTEST_SLEEP = 0.001
"""The shortest delay (s). uvloop cuts delays to whole milliseconds, and would spin for the rest."""


class Expiry(Generic[P]):
    """Calls ``on_expired`` for each watched session at its deadline, and ``on_sweep`` every ``sweep_interval`` seconds.

    A timer of the event loop, so there is neither a task nor anything to await. ``on_expired`` must not raise.
    """

    def __init__(
        self,
        sweep_interval: float,
        on_expired: Callable[[Session[P], EndReason], object],
        on_sweep: Callable[[], None],
    ) -> None:
        self._sweep_interval = sweep_interval
        self._on_expired = on_expired
        self._on_sweep = on_sweep
        self._deadlines = Deadlines[Session[P]](lambda session: session.deadline)
        self._next_sweep: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = inf
        self._stopped = False

    def start(self) -> None:
        """Begin to sweep. Idempotent."""
        if self._next_sweep is None:
            self._next_sweep = time.monotonic() + self._sweep_interval
            self._arm()

    def watch(self, session: Session[P]) -> None:
        """Expire the session at its deadline. Call this again if the deadline has come nearer."""
        self.start()
        self._deadlines.add(session)
        self._arm()

    def forget(self, session: Session[P]) -> None:
        """Stop watching a session. The timer may fire once without effect."""
        self._deadlines.discard(session)

    def stop(self) -> None:
        """Stop the timer for good. Idempotent."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        due, sweep = self._deadlines.next_check(), self._next_sweep
        wanted = min(inf if due is None else due, inf if sweep is None else sweep)
        if self._stopped or wanted == inf or (self._timer is not None and self._rings_at <= wanted):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = wanted
        delay = max(_SHORTEST_SLEEP, wanted - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer = None
        try:
            now = time.monotonic()
            for session in self._deadlines.pop_due(now):
                if (reason := session.expired_because) is not None:
                    self._on_expired(session, reason)
            if self._next_sweep is not None and self._next_sweep <= now:
                self._next_sweep = now + self._sweep_interval
                self._on_sweep()
        finally:
            self._arm()
