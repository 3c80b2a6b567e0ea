"""Collects all faults of a configuration, with their keys."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import UnionType
from typing import Any, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from consumer.observability import is_secret_key, mask_text
from consumer.settings.fields import first_sentence, meaning_of
from schemas.text import problem_of, unknown_field

KeyPath = tuple[str | int, ...]
"""The path of a value: ``("services", "todo", "command")``."""

_HIDDEN = ("env", "headers", "url", "command", "sha256")
"""Keys whose values no error repeats. They may contain secrets, or a token in place of its hash."""

_TABLES = ("dict_type", "model_type", "model_attributes_type")
"""Faults of a value in place of a table, which may be any of the table's secrets."""

_SAYS = {
    "missing": "is missing",
    "string_type": "must be text in quotes",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "list_type": "must be a list: [...]",
    "tuple_type": "must be a list: [...]",
    "dict_type": "must be a table: [section] in TOML, {...} in JSON",
    "model_type": "must be a table: [section] in TOML, {...} in JSON",
    "model_attributes_type": "must be a table: [section] in TOML, {...} in JSON",
    "string_pattern_mismatch": "must be 1 to 64 letters, digits, - or _",
}

_PATTERNS = {
    "sha256": 'must be 64 hexadecimal digits: printf %s "$TOKEN" | sha256sum',
    "public_url": "must be an address like https://gateway.example.com",
    "call_header": "must be the name of an HTTP header",
}
"""The messages for texts that do not match a pattern."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: the key as the user wrote it, and what to write instead."""

    key: str
    problem: str
    meaning: str = ""
    """The meaning of the setting, if there is such a setting."""

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}"


class ConfigurationError(Exception):
    """The configuration cannot be used; ``faults`` has everything that is wrong with it.

    ``warnings`` are the warnings about it, as far as they are known despite the faults.
    """

    def __init__(self, faults: Iterable[Fault], warnings: Iterable[str] = ()) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        self.warnings = tuple(warnings)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n  ".join((f"the configuration has {count}:", *map(str, self.faults))))


def dotted(path: KeyPath) -> str:
    """Format a path for people: ``routes[0].services``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the file"


def faults_of(error: ValidationError, model: type[BaseModel], written: Mapping[KeyPath, str]) -> Iterator[Fault]:
    """Return pydantic's faults in our words. ``written`` maps paths to the names that the user wrote."""
    found = error.errors(include_url=False)
    lists = {fault["loc"][:-1] for fault in found if fault["loc"]}
    for fault in found:
        path: KeyPath = tuple(part for part in fault["loc"] if part != "[key]")
        if fault["type"] == "too_short" and fault["loc"] in lists:
            continue  # pydantic does not count the items that have faults of their own
        if path[:1] == ("services",) and path[2:] == ("name",) and path[1] == fault.get("input"):
            continue  # the name comes from the key, which has a fault of its own
        if fault["type"] == "extra_forbidden":
            yield Fault(key_of(path, written), _unknown(model, path))
        else:
            given = None if _is_secret(model, path) else fault.get("input")
            problem = _problem(path, fault["type"], fault["msg"], given)
            yield Fault(key_of(path, written), problem, _meaning_at(model, path))


def faults_behind(
    error: ValidationError, table: Mapping[str, Any], model: type[BaseModel], written: Mapping[KeyPath, str]
) -> Iterator[Fault]:
    """Return the faults of whole tables, which pydantic checks only if each key is valid.

    Invalid keys are left out for this check. A fault counts only if it names none of them.
    """
    paths = [tuple(part for part in fault["loc"] if part != "[key]") for fault in error.errors(include_url=False)]
    rest = deepcopy(dict(table))
    lost: dict[KeyPath, list[str]] = {}
    for path in paths:
        inside = _value_at(rest, path[:-1])
        if isinstance(inside, dict) and path[-1] in inside:
            del inside[path[-1]]
            lost.setdefault(path[:-1], []).append(str(path[-1]))
    try:
        model(**rest)
    except ValidationError as behind:
        for fault in behind.errors(include_url=False):
            words = set(_WORD.findall(fault["msg"]))
            hidden = lost.get(fault["loc"])
            if (
                hidden
                and fault["type"] == "value_error"
                and not words.intersection(_known(model, fault["loc"], hidden))
            ):
                yield Fault(key_of(fault["loc"], written), _problem(fault["loc"], fault["type"], fault["msg"], None))


def _known(model: type[BaseModel], path: KeyPath, lost: list[str]) -> set[str]:
    """The lost keys, and all keys of the table where one of the lost is unknown: it may stand for any of them."""
    keys = _keys_at(model, path)
    return set(lost) if set(lost) <= set(keys) else {*lost, *keys}


def _value_at(table: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            table = table[part]
        except (KeyError, IndexError, TypeError):
            return None
    return table


_WORD = re.compile(r"\w+")


def key_of(path: KeyPath, written: Mapping[KeyPath, str]) -> str:
    """Return a path under the name that the user wrote."""
    for length in range(len(path), 0, -1):
        name = written.get(path[:length])
        if name is not None:
            rest = dotted(path[length:]) if path[length:] else ""
            return f"{name} ({rest})" if rest else name
    return dotted(path)


def _problem(path: KeyPath, kind: str, message: str, given: Any) -> str:
    pattern = _PATTERNS.get(str(path[-1])) if path and kind == "string_pattern_mismatch" else None
    said = pattern or _SAYS.get(kind) or problem_of(message)
    hidden = kind in _TABLES or any(is_secret_key(part) or part in _HIDDEN for part in path)
    if kind == "missing" or hidden or not isinstance(given, str | int | float):
        return said
    if kind in ("list_type", "tuple_type"):
        return f"must be a list: write {mask_text(json.dumps([given], ensure_ascii=False), 80)}"
    shown = mask_text(repr(given), 80)
    return said if kind == "value_error" and shown in said else f"{said}; it is {shown}"


def _is_secret(model: type[BaseModel], path: KeyPath) -> bool:
    """Return whether the setting at a path is a secret, or may contain one."""
    for length in range(1, len(path) + 1):
        inside = _model_at(model, path[: length - 1])
        setting = inside.model_fields.get(str(path[length - 1])) if inside is not None else None
        if setting is None:
            continue
        types = list(_types_in(setting.annotation))
        if any(issubclass(one, SecretStr) for one in types) or (length == len(path) and any(map(_is_model, types))):
            return True
    return False


def _unknown(model: type[BaseModel], path: KeyPath) -> str:
    """Return the fault of an unknown key. It names the neighbouring table if the key belongs there."""
    inside, name = _model_at(model, path[:-1]), str(path[-1])
    for key, found in inside.model_fields.items() if inside is not None else ():
        table = next((one for one in (found.annotation, *get_args(found.annotation)) if _is_model(one)), None)
        if table is not None and name in table.model_fields:
            return f"is unknown; did you mean {key}.{name}?"
    return unknown_field(name, _keys_at(model, path[:-1]))


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _keys_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys of a model at an inner path; none if the path is unknown."""
    inside = _model_at(model, path)
    return list(inside.model_fields) if inside is not None else []


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """Return the model at a path inside another one."""
    if not path:
        return model
    found = model.model_fields.get(str(path[0]))
    inside = next(_models_in(found.annotation), None) if found else None
    if found is None or inside is None:
        return None
    rest = path[1:]
    if _holds_many(found.annotation):  # an index, or a name, which may be that of a setting: a service named "url"
        if not rest:
            return None
        rest = rest[1:]
    while rest and rest[0] not in inside.model_fields:  # the member of a union
        rest = rest[1:]
    return _model_at(inside, rest)


def _holds_many(annotation: Any) -> bool:
    """Return whether a value is a list or a table of models, and not one model."""
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return not any(map(_is_model, members)) and any(get_origin(one) in (dict, list, tuple) for one in members)


def _meaning_at(model: type[BaseModel], path: KeyPath) -> str:
    """Return the meaning of the setting at a path in one sentence; empty if there is no such setting."""
    for length in range(len(path), 1, -1):
        inside = _model_at(model, path[: length - 1])
        if inside is not None and path[length - 1] in inside.model_fields:
            return first_sentence(meaning_of(inside, str(path[length - 1])))
    return ""


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    return filter(_is_model, _types_in(annotation))


def _types_in(annotation: Any) -> Iterator[type]:
    arguments = get_args(annotation)
    if isinstance(annotation, type) and not arguments:
        yield annotation
    for argument in arguments:
        yield from _types_in(argument)
