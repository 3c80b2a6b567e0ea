"""An ordered set of deadlines that may move away at no cost."""

import heapq
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")

_SLACK = 64
"""Removed entries that a heap may carry before it is worth rebuilding."""


class Deadlines(Generic[K]):
    """Keys in the order of their deadlines, which ``deadline_of`` tells.

    A heap whose entries may be early, never late: a deadline that has moved away is found out when its entry comes
    up, and pushed on then. So a session that is touched ten thousand times has one entry. A deadline that has come
    *nearer* must be told by ``add``. Everything costs O(log n), touching nothing.
    """

    def __init__(self, deadline_of: Callable[[K], float]) -> None:
        self._deadline_of = deadline_of
        self._heap: list[tuple[float, int, K]] = []
        self._entry: dict[K, int] = {}  # which of a key's entries is the valid one
        self._serial = 0  # also keeps equal moments from being ordered by comparing keys

    def __len__(self) -> int:
        return len(self._entry)

    @property
    def entries(self) -> int:
        """Entries that are kept, those of removed keys included: what it costs in memory."""
        return len(self._heap)

    def add(self, key: K) -> None:
        """Watch a key, or learn that its deadline has come nearer."""
        self._push(self._deadline_of(key), key)

    def discard(self, key: K) -> None:
        """Watch the key no more. Does nothing when it is not watched."""
        if self._entry.pop(key, None) is not None:
            self._tidy()

    def next_check(self) -> float | None:
        """The moment to call ``pop_due`` at; nothing is due before it."""
        self._drop_removed()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> Iterator[K]:
        """Remove and yield what is due, the longest overdue first; keys may be added and discarded meanwhile."""
        while (moment := self.next_check()) is not None and moment <= now:
            _, _, key = heapq.heappop(self._heap)
            del self._entry[key]
            if (deadline := self._deadline_of(key)) > now:
                self._push(deadline, key)
            else:
                yield key

    def _push(self, moment: float, key: K) -> None:
        self._serial += 1
        self._entry[key] = self._serial
        heapq.heappush(self._heap, (moment, self._serial, key))
        self._tidy()

    def _drop_removed(self) -> None:
        while self._heap and self._entry.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._entry) + _SLACK:
            self._heap = [entry for entry in self._heap if self._entry.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)
