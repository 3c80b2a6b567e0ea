"""A summary of one session's tool calls, in memory that does not grow with their number.

Durations are seconds. Up to ``EXACT_CALLS`` calls the percentiles are exact; beyond, durations are kept as counts in
logarithmic buckets, and a percentile is within 2 % of the true one. Counts, sums and the longest are always exact.
"""

import math
from array import array
from collections import Counter
from typing import Any

from schemas.event_data import StartKind

EXACT_CALLS = 256
_GROWTH = math.log(1.04)
"""The width of a bucket. A value is at most 2 % from its middle. A microsecond to a week makes 700 buckets."""

_SHORTEST = 1e-6


class ToolRecord:
    """The tool calls of one session, for its terminal event.

    ``bytes_in`` went into tools (arguments), ``bytes_out`` came out of them (results). ``time_in_flight`` is the sum
    over the calls: two calls at once for a second make two seconds. ``start_kind`` is set by the code that starts the
    process.
    """

    __slots__ = (
        "_buckets",
        "_durations",
        "bytes_in",
        "bytes_out",
        "calls",
        "errors",
        "longest",
        "start_duration",
        "start_kind",
        "time_in_flight",
    )

    def __init__(self, start_kind: StartKind | None = None, start_duration: float | None = None) -> None:
        self.start_kind = start_kind
        self.start_duration = start_duration
        self.calls = 0
        self.errors = 0
        self.longest = 0.0
        self.time_in_flight = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self._durations = array("d")
        self._buckets: Counter[int] | None = None

    def add(self, seconds: float, *, error: bool = False, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Count one finished call: answered, failed or cancelled."""
        self.calls += 1
        self.errors += error
        self.longest = max(self.longest, seconds)
        self.time_in_flight += seconds
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        if self._buckets is not None:
            self._buckets[bucket_of(seconds)] += 1
            return
        self._durations.append(seconds)
        if len(self._durations) > EXACT_CALLS:
            self._buckets = Counter(map(bucket_of, self._durations))
            self._durations = array("d")

    def percentile(self, share: float) -> float | None:
        """Return the shortest duration that ``share`` (0 to 1) of the calls did not exceed; None without calls."""
        if not self.calls:
            return None
        rank = max(1, math.ceil(share * self.calls))
        if self._buckets is None:
            return sorted(self._durations)[rank - 1]
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return min(middle_of(bucket), self.longest)
        return self.longest

    def summary(self) -> dict[str, Any]:
        """Return the record as JSON. Times are seconds, rounded to microseconds."""
        return {
            "calls": self.calls,
            "errors": self.errors,
            "p50": _rounded(self.percentile(0.50)),
            "p95": _rounded(self.percentile(0.95)),
            "longest": _rounded(self.longest if self.calls else None),
            "time_in_flight": _rounded(self.time_in_flight),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "start": self.start_kind,
            "start_duration": _rounded(self.start_duration),
        }


def bucket_of(seconds: float) -> int:
    """Return the logarithmic bucket of a duration."""
    return round(math.log(max(seconds, _SHORTEST)) / _GROWTH)


def middle_of(bucket: int) -> float:
    """Return the duration (s) that a bucket stands for, within 2 % of each in it."""
    return math.exp(bucket * _GROWTH)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
