"""Limits what the log says of refused requests, because anybody can send them."""

import time
from typing import Final

SAID_EVERY: Final = 60.0
"""How often (s) the log says that requests are refused for the same reason."""


class RefusalCounter:
    """Decides which refusals to log: one a minute for each reason. There must be few reasons."""

    def __init__(self) -> None:
        self._said_at: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def due(self, reason: str) -> int | None:
        """Count a refusal. Return how many unlogged ones with its reason came before it; None if it is not logged."""
        now = time.monotonic()
        if reason in self._said_at and now - self._said_at[reason] < SAID_EVERY:
            self._unsaid[reason] = self._unsaid.get(reason, 0) + 1
            return None
        self._said_at[reason] = now
        return self._unsaid.pop(reason, 0)
