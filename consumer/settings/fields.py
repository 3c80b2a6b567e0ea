"""Information about the fields of settings models: their meaning, and whether a reload applies them.

A setting is defined once, where it is declared: name, type, default, ``Reloadable`` or not, and below it its meaning.
The reference, the variables of the environment, ``config check`` and a reload follow from that.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import BaseModel

from schemas.base import Section


@dataclass(frozen=True, slots=True)
class _TakenOn:
    """Marks a setting that a running worker applies when it reloads its configuration (SIGHUP)."""


_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")

T = TypeVar("T")
Reloadable = Annotated[T, _TakenOn()]
"""The type of a setting that a running worker applies at a reload."""

S = TypeVar("S", bound=Section)


def reloadable_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the names of the fields that are marked ``Reloadable``."""
    return tuple(name for name, field in model.model_fields.items() if _TakenOn() in field.metadata)


def meaning_of(model: type[BaseModel], name: str) -> str:
    """Return the docstring below a field, on one line; empty if there is none."""
    return " ".join((model.model_fields[name].description or "").split())


def first_sentence(meaning: str) -> str:
    """Return the first sentence of a meaning as plain text. A link becomes the name of its page."""
    begins = _LINK.sub(r"\1 (docs/\2)", meaning).partition(". ")[0]
    return f"{begins.removesuffix('.')}." if meaning else ""


def reloaded(running: S, given: S) -> S:
    """Return a section after a reload: ``running``, with the reloadable settings of ``given``."""
    return running.model_copy(update={name: getattr(given, name) for name in reloadable_fields(type(running))})


def needing_restart(running: Section, given: Section) -> Iterator[str]:
    """Return the names of changed settings that a reload does not apply."""
    for name in type(running).model_fields:
        if name not in reloadable_fields(type(running)) and getattr(running, name) != getattr(given, name):
            yield name
