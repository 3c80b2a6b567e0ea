"""An ordered set of deadlines in which postponing costs nothing."""

import heapq
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")

_SLACK = 64
"""How many removed entries a heap may contain before it is rebuilt."""


class Deadlines(Generic[K]):
    """Keys in the order of their deadlines, which ``deadline_of`` returns.

    It is a heap whose entries may be early, never late. A postponed deadline is noticed when its entry is due, and its
    entry is moved then. So a session that is touched ten thousand times has one entry. If a deadline has come *nearer*,
    ``add`` must be called. Everything costs O(log n), touching nothing.
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
        """The number of entries, including those of removed keys. It shows the use of memory."""
        return len(self._heap)

    def add(self, key: K) -> None:
        """Watch a key, or note that its deadline has come nearer."""
        self._push(self._deadline_of(key), key)

    def discard(self, key: K) -> None:
        """Stop watching the key. Does nothing if it is not watched."""
        if self._entry.pop(key, None) is not None:
            self._tidy()

    def next_check(self) -> float | None:
        """The time to call ``pop_due``. Nothing is due before it."""
        self._drop_removed()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> Iterator[K]:
        """Remove and yield the due keys, the longest overdue first. Keys may be added and discarded meanwhile."""
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
