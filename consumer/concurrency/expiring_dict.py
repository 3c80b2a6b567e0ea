"""A mapping for things that are remembered for a while: ended calls, recent placements."""

import asyncio
from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")


class ExpiringDict(Generic[V]):
    """A mapping whose entries are forgotten ``keep`` seconds after they were set.

    Beyond ``most`` entries the oldest are forgotten earlier, because the entries come from outside.
    """

    def __init__(self, keep: float, most: int = 100_000) -> None:
        self._keep = keep
        self._most = most
        self._entries: OrderedDict[str, tuple[float, V]] = OrderedDict()

    def set(self, key: str, value: V) -> None:
        """Set a value. It expires ``keep`` seconds from now."""
        self._forget_old()
        self._entries.pop(key, None)
        self._entries[key] = (asyncio.get_running_loop().time() + self._keep, value)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def get(self, key: str) -> V | None:
        """Return the value of a key, or None."""
        self._forget_old()
        entry = self._entries.get(key)
        return entry[1] if entry else None

    def items(self) -> list[tuple[str, V]]:
        """Return all items, the oldest first."""
        self._forget_old()
        return [(key, value) for key, (_, value) in self._entries.items()]

    def drop(self, key: str) -> None:
        """Drop a key."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Drop all keys."""
        self._entries.clear()

    def _forget_old(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._entries and next(iter(self._entries.values()))[0] <= now:
            self._entries.popitem(last=False)
