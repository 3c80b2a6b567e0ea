"""Limits a server's share of the event loop: how much time its unrequested output may cost.

All sessions of a worker share one loop. A server that sends without end is read more slowly, which affects only its own
session. If it goes on, it is ended.
"""

import time

from mcp_types import JSONRPCMessage, JSONRPCNotification, JSONRPCRequest

RATE = 0.1
"""Seconds of the loop that a server may cost in each second."""

BURST = 0.4
"""Seconds of the loop that it may save up."""

NOTIFICATION = 0.0005
"""The cost (s) of one notification until it reaches a caller through SDK and broker; measured, and rounded up."""

WAKING = 0.00005
"""The cost (s) of waking up for a piece of output and reading it, beside what can be measured."""

EVENT = 0.0002
"""The cost (s) of a server-sent event that is no answer, even if no requester gets it."""

REQUEST = 0.002
"""The cost (s) of a server's question."""

PARSING = 2e-8
"""The highest cost (s) of parsing one byte, where it cannot be measured."""

TALKS = "it kept sending messages that nobody requested, which slowed other sessions down"
"""The reason in the message when a server is ended for it."""

OVERDRAWN_TIMEOUT = 10.0
"""How long (s) a server may exceed its share."""


def price_of(message: JSONRPCMessage) -> float:
    """Return how long (s) the event loop works on a message after reading it; 0 for a requested one."""
    match message:
        case JSONRPCRequest():
            return REQUEST
        case JSONRPCNotification():
            return NOTIFICATION
    return 0.0


class LoopShare:
    """The account of one server's share of the loop."""

    def __init__(self) -> None:
        self._left = BURST
        self._counted_at = time.monotonic()
        self._short_since: float | None = None

    def spend(self, seconds: float) -> None:
        """Add the time that a server's message has cost."""
        self._refill()
        self._left -= seconds
        if self._left < 0 and self._short_since is None:
            self._short_since = self._counted_at

    def _refill(self) -> None:
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._counted_at) * RATE)
        self._counted_at = now
        if self._left > BURST / 2:
            self._short_since = None

    @property
    def rest(self) -> float:
        """How long (s) to stop reading from the server."""
        self._refill()
        return max(0.0, -self._left / RATE)

    @property
    def is_overdrawn(self) -> bool:
        """Whether the server has used more than its share for too long."""
        return self._short_since is not None and self._counted_at - self._short_since > OVERDRAWN_TIMEOUT
