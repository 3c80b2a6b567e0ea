"""A server's share of the event loop: what it says unasked may cost so much time, and then it is not listened to.

All sessions of a worker share one loop. Whoever talks without end is read more slowly, which nobody but its own session
feels, and is given up when it goes on.
"""

import time

from mcp_types import JSONRPCMessage, JSONRPCNotification, JSONRPCRequest

RATE = 0.1
"""Seconds of the loop that a server may cost in each second."""

BURST = 0.4
"""Seconds that it may have saved up."""

NOTIFICATION = 0.0005
"""What one costs (s) until it has reached a caller, by way of the SDK and the broker; measured, and rounded up."""

WAKING = 0.00005
"""What it costs (s) to wake up for a piece of output and to read it, beside what can be measured."""

EVENT = 0.0002
"""What a server-sent event costs (s) that is no answer, whether or not anybody hears it."""

REQUEST = 0.002
"""What a question of the server costs (s)."""

PARSING = 2e-8
"""What a byte costs (s) that is parsed where nobody can measure it, at worst."""

TALKS = "it kept sending messages that nobody requested, which slowed other sessions down"
"""Why a server was given up."""

OVERDRAWN_TIMEOUT = 10.0
"""How long (s) a server may go on with more than its share."""


def price_of(message: JSONRPCMessage) -> float:
    """Return how long (s) the event loop works on a message after reading it; 0 for a requested one."""
    match message:
        case JSONRPCRequest():
            return REQUEST
        case JSONRPCNotification():
            return NOTIFICATION
    return 0.0


class LoopShare:
    """The account of one server."""

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
