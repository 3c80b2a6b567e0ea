"""The marks of a platform's bodies, as data: they select the translator, and name what a refused body lacks.

A translator's shapes are alternatives; a shape is all of its marks. Only the marks distinguish platforms. So the reason
for refusing a body is always the exact condition that it does not meet.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from consumer.telephony.translation import Payload


@dataclass(frozen=True, slots=True)
class Mark:
    """One condition on a body.

    ``missing`` is the sentence for a body that does not meet it. ``keys`` are fields one of which every body has that
    meets it; the first mark of a shape needs them, because bodies are sorted by them. ``absence`` marks what must not
    be there, which any stranger's body meets.
    """

    missing: str
    holds: Callable[[Payload], bool]
    keys: tuple[str, ...] = ()
    absence: bool = False


MAX_NAMED = 6

Shape: TypeAlias = tuple[Mark, ...]


def has(*names: str) -> Mark:
    """Require at least one of the fields."""
    said = f"it has no {quoted(names)}" if len(names) == 1 else f"it has none of {quoted(names)}"
    if len(names) == 1:
        (name,) = names
        return Mark(said, lambda body: name in body, names)
    return Mark(said, lambda body: any(name in body for name in names), names)


def lacks(*names: str) -> Mark:
    """Require that none of the fields exists."""
    return Mark(
        f"it has {'one of ' if len(names) > 1 else ''}{quoted(names)}",
        lambda body: not any(name in body for name in names),
        absence=True,
    )


def is_text(name: str) -> Mark:
    """Require a field with a text."""
    return Mark(f"{name!r} is not a string", lambda body: isinstance(body.get(name), str), (name,))


def is_number(name: str) -> Mark:
    """Require a field with a number, or with its digits."""

    def holds(body: Payload) -> bool:
        value = body.get(name)
        return isinstance(value, int | float) or (isinstance(value, str) and value.isdecimal())

    return Mark(f"{name!r} is not a number", holds, (name,))


def is_object(*names: str) -> Mark:
    """Require at least one field with an object."""
    return Mark(
        f"{quoted(names)} {'is not an object' if len(names) == 1 else 'are not objects'}",
        lambda body: any(isinstance(body.get(name), dict) for name in names),
        names,
    )


def begins(name: str, *beginnings: str) -> Mark:
    """Require a field whose text has one of these beginnings."""

    def holds(body: Payload) -> bool:
        value = body.get(name)
        return isinstance(value, str) and value.startswith(beginnings)

    return Mark(f"{name!r} does not begin with {quoted(beginnings)}", holds, (name,))


def among(name: str, words: Iterable[str]) -> Mark:
    """Require a field with one of these words."""
    known = frozenset(words)

    def holds(body: Payload) -> bool:
        value = body.get(name)
        return isinstance(value, str) and value in known

    return Mark(f"{name!r} is not one of {quoted(sorted(known))}", holds, (name,))


def inside(name: str, mark: Mark) -> Mark:
    """Require a field with an object that has this mark."""

    def holds(body: Payload) -> bool:
        inner = body.get(name)
        return isinstance(inner, dict) and mark.holds(inner)

    return Mark(f"in {name!r}, {mark.missing}", holds, (name,))


def either(*marks: Mark) -> Mark:
    """Require at least one of the marks."""
    return Mark(
        " and ".join(mark.missing for mark in marks),
        lambda body: any(mark.holds(body) for mark in marks),
        tuple(key for mark in marks for key in mark.keys),
    )


def fits(shape: Shape, body: Payload) -> bool:
    """Return whether the body has every mark of the shape."""
    for mark in shape:  # noqa: SIM110 - a generator costs more than most of the marks
        if not mark.holds(body):
            return False
    return True


def missing(shape: Shape, body: Payload) -> list[Mark]:
    """Return the marks of the shape that the body lacks."""
    return [mark for mark in shape if not mark.holds(body)]


def nearness(shape: Shape, body: Payload) -> int:
    """Return how many characteristic marks of the shape the body has, if it lacks only one mark; otherwise 0."""
    lost = missing(shape, body)
    return sum(mark not in lost and not mark.absence for mark in shape) if len(lost) == 1 else 0


def quoted(names: Iterable[str]) -> str:
    """Return names for a sentence: the first few of many."""
    all_names = list(names)
    more = ", ..." if len(all_names) > MAX_NAMED else ""
    return ", ".join(map(repr, all_names[:MAX_NAMED])) + more
