"""Limits how often the log says the same, because anybody can cause some lines."""

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

LOGGED_EVERY: Final = 60.0
"""How often (s) a line is logged for the same key."""

MOST_KEYS: Final = 1000
"""How many keys are remembered. There is a limit because anybody can make some up, such as reply addresses."""


@dataclass(slots=True)
class _Logged:
    at: float
    unsaid: int = 0


class LogLimiter:
    """Decides which lines to log: one a minute for each key, such as an address or the reason of a refusal."""

    def __init__(self) -> None:
        self._logged: OrderedDict[str, _Logged] = OrderedDict()
        """The keys, the one whose line is oldest first."""

    def due(self, key: str) -> int | None:
        """Count a line. Return how many unlogged ones with its key came before it; None if it is not logged."""
        now = time.monotonic()
        last = self._logged.get(key)
        if last is not None and now - last.at < LOGGED_EVERY:
            last.unsaid += 1
            return None
        self._logged[key] = _Logged(now)
        self._logged.move_to_end(key)
        if len(self._logged) > MOST_KEYS:
            self._logged.popitem(last=False)
        return last.unsaid if last is not None else 0
