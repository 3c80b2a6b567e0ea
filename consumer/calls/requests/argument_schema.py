"""Finds where a tool's schema accepts an argument, and removes it. Pure, and bounded against hostile schemas.

An argument may be taken by ``properties``, also below ``allOf``, ``anyOf``, ``if``, ``$ref`` and their like, by
``patternProperties``, or by ``additionalProperties``. Nested objects are another matter: an argument is a name at the
top of ``arguments``.
"""

from collections.abc import Callable, Set
from typing import Any

from schemas.base import Json

_LISTS = ("allOf", "anyOf", "oneOf")
_ALONE = ("if", "then", "else", "not")
_BY_NAME = ("dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
MAX_SCHEMAS = 1_000
"""How many schemas one tool may have at the top level, counting all branches and references."""


class _TooMuch(Exception):
    """The schema has too many branches to read."""


class _Walk:
    """Visits all schemas that apply to the arguments object as a whole."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self._left = MAX_SCHEMAS

    def rewritten(self, schema: Any, change: Callable[[Json], Json], within: tuple[str, ...] = ()) -> Any:
        """Return the schema with ``change`` applied to each part. References are replaced by what they refer to."""
        self._left -= 1
        if self._left < 0:
            raise _TooMuch
        if not isinstance(schema, dict):
            return schema
        made = change(dict(schema))
        for key in _LISTS:
            if isinstance(found := made.get(key), list):
                made[key] = [self.rewritten(one, change, within) for one in found]
        for key in _ALONE:
            if key in made:
                made[key] = self.rewritten(made[key], change, within)
        for key in _BY_NAME:
            if isinstance(found := made.get(key), dict):
                made[key] = {name: self.rewritten(one, change, within) for name, one in found.items()}
        for key in _REFERENCES:
            if isinstance(reference := made.pop(key, None), str) and reference not in within:
                meant = self.rewritten(self._meant(reference), change, (*within, reference))
                made["allOf"] = [*(made["allOf"] if isinstance(made.get("allOf"), list) else []), meant]
        return made

    def _meant(self, reference: str) -> Any:
        """Return what a reference within the schema refers to. A reference to another place may mean anything."""
        if reference == "#":
            return self._root
        if not reference.startswith("#/"):
            return True
        found: Any = self._root
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                return True
            found = found[name]
        return found


def taken_by(schema: Any, names: Set[str]) -> Set[str]:
    """Return those of ``names`` that the schema accepts as arguments: by name, by pattern, or because it accepts any.

    A schema without a rule for further properties counts as accepting none, because servers ignore arguments that they
    do not name.
    """
    taken: set[str] = set()

    def look(one: Json) -> Json:
        properties = one.get("properties")
        taken.update(names & properties.keys() if isinstance(properties, dict) else ())
        for opener in ("additionalProperties", "unevaluatedProperties"):
            if one.get(opener, False) is not False:
                taken.update(names)
        if one.get("patternProperties"):  # its patterns are the server's: nobody runs them here
            taken.update(names)
        if any(not str(one[key]).startswith("#") for key in _REFERENCES if key in one):
            taken.update(names)
        return one

    if not isinstance(schema, dict):
        return taken
    try:
        _Walk(schema).rewritten(schema, look)
    except _TooMuch:
        return names
    return taken


def without(schema: Json, names: Set[str]) -> Json:
    """Return the schema without these arguments. A schema that is too large to read becomes an empty one."""

    def strip(one: Json) -> Json:
        if isinstance(found := one.get("properties"), dict):
            one["properties"] = {name: value for name, value in found.items() if name not in names}
        if isinstance(found := one.get("required"), list):
            one["required"] = [name for name in found if name not in names]
        for key in ("dependentRequired", *_BY_NAME):
            if isinstance(found := one.get(key), dict):
                one[key] = {name: _less(value, names) for name, value in found.items() if name not in names}
        return one

    try:
        stripped: Json = _Walk(schema).rewritten(schema, strip)
    except _TooMuch:
        return {"type": "object"}
    return stripped


def _less(value: Any, names: Set[str]) -> Any:
    return [one for one in value if one not in names] if isinstance(value, list) else value
