"""What a settings model says of its fields: what each means, and which of them a running worker takes on.

A setting is said once, where it is declared: name, type, default, ``Reloadable`` or not, and below it what it means.
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
    """Marks a setting that a running worker takes on when it reads its configuration again (SIGHUP)."""


_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")

T = TypeVar("T")
Reloadable = Annotated[T, _TakenOn()]
"""The type of a setting that holds for a running worker from its next reload on."""

S = TypeVar("S", bound=Section)


def reloadable_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """The names of the fields that are marked ``Reloadable``."""
    return tuple(name for name, field in model.model_fields.items() if _TakenOn() in field.metadata)


def meaning_of(model: type[BaseModel], name: str) -> str:
    """The docstring below a field, on one line; empty if there is none."""
    return " ".join((model.model_fields[name].description or "").split())


def first_sentence(meaning: str) -> str:
    """Return the first sentence of a meaning as plain text. A link is told as the page of it."""
    begins = _LINK.sub(r"\1 (docs/\2)", meaning).partition(". ")[0]
    return f"{begins.removesuffix('.')}." if meaning else ""


def reloaded(running: S, given: S) -> S:
    """A section after a reload: ``running``, with the reloadable settings of ``given``."""
    return running.model_copy(update={name: getattr(given, name) for name in reloadable_fields(type(running))})


def needing_restart(running: Section, given: Section) -> Iterator[str]:
    """The names of the settings that differ and that no running worker takes on."""
    for name in type(running).model_fields:
        if name not in reloadable_fields(type(running)) and getattr(running, name) != getattr(given, name):
            yield name
