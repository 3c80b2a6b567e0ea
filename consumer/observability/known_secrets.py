"""The secrets of the configuration, which are masked in every text, whatever its source.

Patterns find text that looks like a secret; this module knows the real ones. A learned secret is masked until the
process ends, because after a reload it may still appear in an error.
"""

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

MASK = "***"
SHORTEST = 8
"""The length of the shortest secret that is masked. A shorter one would mask half of every text."""

LONGEST = 4_096
"""The most characters of a secret that are searched for. Of a longer one this is its beginning."""

_known: set[str] = set()
_pattern: re.Pattern[str] | None = None


def learn(secrets: Iterable[str]) -> None:
    """Mask these texts from now on, also in their URL, JSON and base64 forms. Idempotent."""
    global _pattern  # noqa: PLW0603 - one process has one set of secrets
    forms = {form[:LONGEST] for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)}
    if forms <= _known:
        return
    _known.update(forms)
    _pattern = re.compile("|".join(map(re.escape, sorted(_known, key=len, reverse=True))))


def known() -> int:
    """Return the number of known secrets. Cached masked texts are masked again when it grows."""
    return len(_known)


def without_known(text: str) -> str:
    """Return the text with each known secret masked."""
    return _pattern.sub(MASK, text) if _pattern is not None else text


def _forms(secret: str) -> Iterable[str]:
    plain = unquote(secret)
    for form in (secret, plain):
        yield form
        yield quote(form, safe="")
        yield json.dumps(form)[1:-1]
        yield base64.b64encode(form.encode()).decode().rstrip("=")
