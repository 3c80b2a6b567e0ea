"""Decides which services a starting call gets: those of the first matching route. Pure.

A route matches when every one of its conditions does. A condition is one pattern, or several of which one must match.
Patterns are those of the shell (``*``, ``?``, ``[seq]``, ``[!seq]``), and case matters. A missing field matches no
pattern, so ``"*"`` requires that the field exists.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Protocol, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from schemas.base import Json, Seconds, Section
from schemas.calls import CallEvent, Direction
from schemas.ids import ServiceName, ServiceNameField

CALL_KEY = "call"
"""The key of a session's metadata that holds the call event; a route cannot set it."""


def _as_patterns(value: object) -> object:
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be a pattern in quotes, or a list of them")
    return [value] if isinstance(value, str) else value


def _without_repetition(names: tuple[ServiceName, ...]) -> tuple[ServiceName, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names {', '.join(twice)} twice; a call has one session on a service")
    return names


def _without_call(metadata: Json) -> Json:
    if CALL_KEY in metadata:
        raise ValueError(f"the key {CALL_KEY!r} is reserved for the call event; choose another")
    return metadata


_DIRECTIONS = get_args(Direction)

Patterns = Annotated[tuple[str, ...], BeforeValidator(_as_patterns), Field(min_length=1)]
"""One glob pattern, or several of which one must match."""


def _that_can_match(match: dict[str, Patterns]) -> dict[str, Patterns]:
    never = [one for one in match.get("direction", ()) if not any(fnmatchcase(word, one) for word in _DIRECTIONS)]
    if never:
        raise ValueError(
            f"direction: {', '.join(map(repr, never))} never matches; a call is {', '.join(_DIRECTIONS[:-1])} or "
            f"{_DIRECTIONS[-1]}"
        )
    return match


class Route(Section):
    """``[[routes]]``: what calls of one kind get."""

    match: Annotated[dict[str, Patterns], AfterValidator(_that_can_match)] = Field(default_factory=dict)
    """Conditions that all must fit: `direction`, `to`, `from`, `source`, `call_id`, `parent_call_id` or any attribute
    of the event, each with one shell pattern or a list of them. Empty: every call."""
    services: Annotated[tuple[ServiceNameField, ...], AfterValidator(_without_repetition)]
    """What such a call gets. The first one's session has the call's id as its own. Empty: nothing."""
    start: Literal["ringing", "answered"] = "ringing"
    """`ringing`: the sessions open with the first event of the call. `answered`: when it is answered; while it rings,
    their places and processes are held for it."""
    timeout: Seconds | None = None
    """Idle timeout of these sessions, before the service's own."""
    metadata: Annotated[Json, AfterValidator(_without_call)] = Field(default_factory=dict)
    """Added to the sessions' metadata."""

    def matches(self, event: CallEvent) -> bool:
        """Whether every condition fits the event."""
        return all(_fits(_value(event, name), patterns) for name, patterns in self.match.items())


class PlannedService(Protocol):
    """The settings of a service that planning uses."""

    @property
    def enabled(self) -> bool:
        """Whether the service accepts sessions."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The sessions that a starting call gets. A ``timeout`` (s) of None leaves it to each service.

    ``rings`` means that the sessions open only when the call is answered.
    """

    services: tuple[ServiceName, ...] = ()
    timeout: float | None = None
    metadata: Json = field(default_factory=dict)
    rings: bool = False


def plan(event: CallEvent, routes: Sequence[Route], services: Mapping[ServiceName, PlannedService]) -> Plan:
    """Return the services that a call gets.

    Without routes these are all services, in the order of the configuration. With routes, the first one that matches
    decides; if none does, the call gets nothing. Disabled services are left out. The session of the first service has
    the call's id as its own.
    """
    enabled = [name for name, service in services.items() if service.enabled]
    if not routes:
        return Plan(tuple(enabled))
    for route in routes:
        if route.matches(event):
            chosen = tuple(name for name in route.services if name in enabled)
            rings = bool(chosen) and route.start == "answered" and not event.is_answered
            return Plan(chosen, route.timeout, dict(route.metadata), rings)
    return Plan()


def _fits(text: str | None, patterns: Sequence[str]) -> bool:
    return text is not None and any(fnmatchcase(text, pattern) for pattern in patterns)


def _value(event: CallEvent, name: str) -> str | None:
    """Return the event's value under this name, as text. A field of ours has priority over an attribute."""
    match name:
        case "from":
            return event.from_
        case "direction" | "to" | "source" | "call_id" | "parent_call_id":
            found: Any = getattr(event, name)
        case _:
            found = event.attributes.get(name)
    if isinstance(found, bool):
        return str(found).lower()
    return str(found) if isinstance(found, str | int | float) else None


_FIELDS = ("direction", "to", "from", "source", "call_id", "parent_call_id")
_ATTRIBUTES = ("caller_id", "sip_call_id", "parent_id", "form", "tool", "top")
"""Attributes whose names look like misspelt fields, but are correct."""


def odd_fields(route: Route) -> list[str]:
    """Warn of keys of ``match`` that are probably misspelt fields."""
    found = []
    for name in route.match:
        near = get_close_matches(name.casefold(), _FIELDS, n=1, cutoff=0.75)
        if near and name not in _FIELDS and name not in _ATTRIBUTES:
            asks = f"As written, it matches an attribute {name!r}"
            found.append(f"{name}: a call event has no such field; did you mean {near[0]}? {asks}")
    return found


def odd_sources(route: Route, sources: Iterable[str]) -> list[str]:
    """Warn of values of ``match.source`` that no translator has."""
    known = sorted(sources)
    return [
        f"source: no known platform has the source {pattern!r}; known: {', '.join(known)}"
        for pattern in route.match.get("source", ())
        if not any(fnmatchcase(source, pattern) for source in known)
    ]
