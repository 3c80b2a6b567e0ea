"""What a run of the benchmarks comes to: figures with their references and targets, and what is drawn of them.

It knows neither how anything is measured nor how it is shown; as JSON it is what ``docs/figures.json`` holds.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Reference = Literal["sdk", "classic", "quorum", "rest", "peer", "agent"]

REFERENCES: dict[Reference, str] = {
    "sdk": "SDK alone",
    "classic": "AMQP echo",
    "quorum": "AMQP echo, quorum",
    "rest": "REST",
    "peer": "SignalWire's gateway",
    "agent": "SignalWire's agent",
}
"""What ours is compared with, and how a column calls it."""

BIGGER_IS_BETTER = {"/s"}
"""Units of which more is better; of all others less is."""


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Value):
    """One thing that was measured: a median of ``n``, or a single value, in ``unit``; references have the same unit."""

    what: str
    value: float
    unit: str = "ms"
    p99: float | None = None
    n: int = 1
    against: dict[Reference, float] = Field(default_factory=dict)
    target: str = ""
    met: bool | None = None

    def ratio(self, reference: Reference) -> float | None:
        """How many times the reference's figure ours is; none without that reference."""
        theirs = self.against.get(reference)
        return self.value / theirs if theirs else None


class Series(_Value):
    """Points of one line, or bars of one colour."""

    name: str
    points: list[tuple[float | str, float]]


class Plot(_Value):
    """Something to draw: lines over numbers, or a group of bars for each word."""

    name: str
    title: str
    kind: Literal["lines", "bars"]
    x: str
    y: str
    series: list[Series]
    logarithmic: bool = False


class Share(_Value):
    """A part of a profile; ``share`` of 1."""

    part: str
    share: float


class Subject(_Value):
    """One measurement."""

    figures: list[Figure]
    plots: list[Plot] = Field(default_factory=list)
    profile: list[Share] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class Machine(_Value):
    """What it was measured on."""

    cores: int
    processor: str
    memory_gb: int
    system: str
    python: str
    rabbitmq: str
    load_before: float = 0.0
    versions: dict[str, str] = Field(default_factory=dict)


class Report(_Value):
    """A run."""

    made: str
    quick: bool
    machine: Machine
    subjects: dict[str, Subject]

    def figure(self, subject: str, what: str) -> Figure | None:
        """A figure by its name."""
        found = self.subjects.get(subject)
        return next((figure for figure in found.figures if figure.what == what), None) if found else None


@dataclass(frozen=True, slots=True)
class Sample:
    """Durations of one thing (s), in the order in which they were measured."""

    seconds: tuple[float, ...]

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """A sample, of anything."""
        return cls(tuple(seconds))

    def quantile(self, part: float) -> float:
        """The value (s) below which ``part`` of them are; the nearest that was measured."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))]

    @property
    def median(self) -> float:
        """The median (ms)."""
        return statistics.median(self.seconds) * 1000

    def distribution(self, name: str) -> Series:
        """The cumulative distribution up to its 99.5th percentile: milliseconds, and percent that are not slower."""
        parts = [0.0, *(step / 50 for step in range(1, 50)), 0.99, 0.995]
        return Series(name=name, points=[(_round(self.quantile(part) * 1000), part * 100) for part in parts])


@dataclass(frozen=True, slots=True)
class Target:
    """What was aimed at: a value in the figure's unit, or a multiple of a reference and something on top of it."""

    bound: float = 0.0
    reference: Reference | None = None
    times: float = 1.0
    unit: str = "ms"

    def limit(self, against: Mapping[Reference, float]) -> float | None:
        """The value to keep to; none when the reference was not measured."""
        if self.reference is None:
            return self.bound
        theirs = against.get(self.reference)
        return None if theirs is None else theirs * self.times + self.bound

    def __str__(self) -> str:
        more = self.unit in BIGGER_IS_BETTER
        space = "" if self.unit in {"/s", "×"} else " "
        if self.reference is None:
            return f"{'at least' if more else 'below'} {self.bound:g}{space}{self.unit}"
        name = REFERENCES[self.reference]
        if self.bound:
            return f"at most {name} + {self.bound:g}{space}{self.unit}"
        return f"at {'least' if more else 'most'} {self.times:g} × {name}"


def figure(
    what: str,
    value: "Sample | float",
    *,
    unit: str = "ms",
    against: "Mapping[Reference, Sample | float | None] | None" = None,
    target: Target | None = None,
) -> Figure:
    """A figure of a sample, or of a single value; references that are ``None`` were not measured."""
    theirs = {name: _median(one) for name, one in (against or {}).items() if one is not None}
    sample = value if isinstance(value, Sample) else None
    ours = _median(value)
    limit = target.limit(theirs) if target else None
    met = None if limit is None else (ours >= limit if unit in BIGGER_IS_BETTER else ours <= limit)
    return Figure(
        what=what,
        value=_round(ours),
        unit=unit,
        p99=None if sample is None else _round(sample.quantile(0.99) * 1000),
        n=1 if sample is None else len(sample.seconds),
        against={name: _round(one) for name, one in theirs.items()},
        target=str(target) if target else "",
        met=met,
    )


def _median(value: Sample | float) -> float:
    return value.median if isinstance(value, Sample) else float(value)


def _round(value: float) -> float:
    """Four digits: more would be noise, and would make the file unreadable."""
    return float(f"{value:.4g}")
