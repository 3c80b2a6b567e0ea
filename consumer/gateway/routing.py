"""Finds the endpoint of a request by its method and the parts of its path. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.routing import Route


@dataclass(frozen=True, slots=True)
class Found:
    """The route of a path. ``taken`` says whether it accepts the method.

    ``parameters`` are the named parts, not decoded.
    """

    route: Route
    parameters: dict[str, str]
    taken: bool


class _Pattern:
    """A route, and the parts of its path between the slashes."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.methods = frozenset(route.methods or ())
        parts = route.path.split("/")
        self._named = [(at, part[1:-1]) for at, part in enumerate(parts) if part.startswith("{")]
        self._fixed = [(at, part) for at, part in enumerate(parts) if not part.startswith("{")]

    def parameters(self, parts: list[str]) -> dict[str, str] | None:
        """Return the named parts; None if the path does not match."""
        for at, part in self._fixed:
            if parts[at] != part:
                return None
        found = {name: parts[at] for at, name in self._named}
        return found if all(found.values()) else None


class Table:
    """The routes of an application. The first route that matches the path and accepts the method answers."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._patterns: dict[int, list[_Pattern]] = {}
        for route in routes:
            self._patterns.setdefault(route.path.count("/"), []).append(_Pattern(route))

    def find(self, method: str, path: str) -> Found | None:
        """Return the route of a path, if there is one; with another method if none accepts this one."""
        parts = path.split("/")
        other: Found | None = None
        for pattern in self._patterns.get(len(parts) - 1, ()):
            if (parameters := pattern.parameters(parts)) is not None:
                found = Found(pattern.route, parameters, method in pattern.methods)
                if found.taken:
                    return found
                other = other or found
        return other
