"""Limits how often the log says the same, because anybody can cause some lines."""

import time
from typing import Final

LOGGED_EVERY: Final = 60.0
"""How often (s) a line is logged for the same key."""


class LogLimiter:
    """Decides which lines to log: one a minute for each key, such as the reason of a refusal. There must be few keys."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def due(self, key: str) -> int | None:
        """Count a line. Return how many unlogged ones with its key came before it; None if it is not logged."""
        now = time.monotonic()
        if key in self._logged_at and now - self._logged_at[key] < LOGGED_EVERY:
            self._unsaid[key] = self._unsaid.get(key, 0) + 1
            return None
        self._logged_at[key] = now
        return self._unsaid.pop(key, 0)
