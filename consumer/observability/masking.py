"""Masks secrets in texts and bounds their size. Pure.

What counts as a secret: the value of a key that is named like one (``password``, ``auth_token``, ``X-Api-Key``,
``clientSecret``), the password in a URL, a bearer or basic credential, ``password=...`` in a text, and the secrets of
the configuration (:mod:`consumer.observability.known_secrets`). Masking never fails, and its result is never longer. An
unknown object becomes its masked ``repr``.
"""

import math
import re
from collections.abc import Iterable, Mapping, Set
from enum import Enum
from functools import lru_cache
from typing import Any

from consumer.observability.known_secrets import LONGEST, MASK, known, without_known

MAX_TEXT = 2_000
MAX_LONG_TEXT = 10_000
"""The longest text whose end matters as much as its beginning, such as a traceback."""

MAX_KEY = 200
MAX_REMEMBERED = 64
"""The most characters of a text whose masked form is cached."""

_AS_IT_IS = frozenset({bool, int, type(None)})
MAX_ITEMS = 50
MAX_DEPTH = 6
MAX_VALUES = 500
"""The most values in one masked value, over all its levels."""

_NAMES = (
    "password|passwd|passphrase|pwd|secret|token|authorization|api_?key|access_?key|private_?key|credentials?|cookie"
)
_SECRET_KEY = re.compile(rf"(?:^|_)(?:{_NAMES})$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_IN_TEXT = (
    (re.compile(r"""(://[^\s:/@"']*:)[^\s/"'<>]*@"""), rf"\g<1>{MASK}@"),
    (re.compile(r"""(://[^\s:/@"']*:)[^\s/"'<>]*(?=…\(\+)"""), rf"\g<1>{MASK}"),  # cut before its @
    (re.compile(r"""(?<=\)…)[^\s/"'<>]*@"""), f"{MASK}@"),  # cut after its ://
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\g<1> {MASK}"),
    (re.compile(rf"""(?i)\b((?:\w+[_-])?(?:{_NAMES})(?:=|["']\s*:\s*["']))[^\s"'&,;]+"""), rf"\g<1>{MASK}"),
)
_MAY_HIDE = re.compile(r"""://|[…=\s"']""")
"""Characters of which each pattern above needs one. Most texts have none and skip the patterns."""


def is_secret_key(key: object) -> bool:
    """Return whether a value under this key has to be masked."""
    return _key(str(key))[1]


def _key(key: str) -> tuple[str, bool]:
    """Return the key as it is shown, and whether its value is masked."""
    if len(key) > MAX_KEY:
        return mask_text(key, MAX_KEY), _is_secret_name(key[:MAX_KEY])
    return _short_key(key, known())


@lru_cache(maxsize=1024)  # a log's keys are few
def _short_key(key: str, _known: int) -> tuple[str, bool]:
    """The same for a key that may be cached, until more secrets are known."""
    return mask_text(key), _is_secret_name(key)


def _is_secret_name(name: str) -> bool:
    words = _CAMEL.sub("_", name).replace("-", "_").replace(".", "_").lower()
    return _SECRET_KEY.search(words) is not None


def mask_text(text: str, limit: int = MAX_TEXT) -> str:
    """Return the text without secrets, and without its middle if it is longer than ``limit``."""
    if len(text) > limit:
        half = limit // 2  # searched beyond the cut: half a secret is found by nothing
        head, tail = without_known(text[: half + LONGEST])[:half], without_known(text[-half - LONGEST :])[-half:]
        text = f"{head}…(+{len(text) - 2 * half})…{tail}"
    else:
        text = without_known(text)
    if _MAY_HIDE.search(text):
        for pattern, replacement in _IN_TEXT:
            text = pattern.sub(replacement, text)
    return text


@lru_cache(maxsize=4096)  # a log's words are few, but for ids
def _short_text(text: str, _known: int) -> str:
    """Return a masked text. It is cached until more secrets are known."""
    return mask_text(text)


def mask_command(command: Iterable[str]) -> list[str]:
    """A command line without secrets: ``--token=...`` and what follows ``--token`` are masked."""
    told: list[str] = []
    for word in command:
        hide = bool(told) and told[-1].startswith("-") and is_secret_key(told[-1].lstrip("-"))
        told.append(MASK if hide else mask_text(word))
    return told


def masked(value: Any) -> Any:
    """Return a copy for printing: only JSON's types, no secrets, and limits on depth, width and length."""
    return _Masking().value(value, MAX_DEPTH)


def masked_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of named fields to print, without secrets."""
    return _Masking().fields(fields, MAX_DEPTH)


class _Masking:
    """Masks one value, and counts its parts."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def value(self, value: Any, depth: int) -> Any:
        self._left -= 1
        match value:
            case Enum():
                return self.value(value.value, depth)
            case None | bool() | int():
                return value
            case float():
                return value if math.isfinite(value) else str(value)
            case str():
                return mask_text(str(value))
            case bytes() | bytearray() | memoryview():
                return f"<{len(value)} bytes>"
            case Mapping() | list() | tuple() | Set() if depth <= 0:
                return "…"
            case Mapping():
                return self.fields(value, depth)
            case list() | tuple() | Set():
                return self._items(value, depth)
        return mask_text(_told(value))

    def fields(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        told: dict[str, Any] = {}
        secrets = known()
        for key, item in value.items():
            if len(told) >= MAX_ITEMS or self._left <= 0:
                told["…"] = f"+{len(value) - len(told)}"
                break
            short = type(key) is str and len(key) <= MAX_KEY
            name, hides = _short_key(key, secrets) if short else _key(str(key))
            kind = type(item)
            if hides and item is not None:
                told[name] = MASK
            elif kind is str and len(item) <= MAX_REMEMBERED:  # as most values of a log line are
                self._left -= 1
                told[name] = _short_text(item, secrets)
            elif kind in _AS_IT_IS or (kind is float and math.isfinite(item)):
                self._left -= 1
                told[name] = item
            else:
                told[name] = self.value(item, depth - 1)
        return told

    def _items(self, value: list[Any] | tuple[Any, ...] | Set[Any], depth: int) -> list[Any]:
        told: list[Any] = []
        for item in value:
            if len(told) >= MAX_ITEMS or self._left <= 0:
                told.append(f"…(+{len(value) - len(told)})")
                break
            told.append(self.value(item, depth - 1))
        return told


def _told(value: object) -> str:
    try:
        return str(value) if isinstance(value, BaseException) else repr(value)
    except Exception as error:  # noqa: BLE001 - somebody else's repr; a log line must not fail
        return f"<{type(value).__name__}: {type(error).__name__} in its repr>"
