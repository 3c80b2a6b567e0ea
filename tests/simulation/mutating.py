"""Making mistakes on purpose, by name: ``mutations`` and ``session_mutations`` have them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Put = Callable[[Any, str, Any], None]
"""Puts another value where an object has one."""

MUTATIONS: dict[str, Callable[[Put], None]] = {}


def mutation(name: str) -> Callable[[Callable[[Put], None]], Callable[[Put], None]]:
    """Give a mistake its name."""

    def note(make: Callable[[Put], None]) -> Callable[[Put], None]:
        MUTATIONS[name] = make
        return make

    return note


@contextmanager
def mutated(*names: str) -> Iterator[None]:
    """Have the mistakes of these names within this."""
    saved: list[tuple[Any, str, Any]] = []

    def put(where: Any, attribute: str, value: Any) -> None:
        saved.append((where, attribute, getattr(where, attribute)))
        setattr(where, attribute, value)

    for name in names:
        MUTATIONS[name](put)
    try:
        yield
    finally:
        for where, attribute, value in reversed(saved):
            setattr(where, attribute, value)


async def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""
