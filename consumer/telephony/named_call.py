"""Finds the call that an unreadable event names, if it can be found. Pure.

Nothing depends on it: it is added to the dead letter, so that a search for the call finds it.
"""

import re
from collections.abc import Mapping
from urllib.parse import unquote_plus

from schemas.ids import MAX_ID_BYTES, CallId, escape_call_id

_NAME = rb"call[_-]?id|call[_-]?sid|call[_-]?uuid|unique[_-]?id"
_IN_JSON = re.compile(rb'"(?:%b)"\s{0,9}:\s{0,9}"([^"\\\x00-\x1f]{1,255})"' % _NAME, re.IGNORECASE)
_IN_FORM = re.compile(rb"(?:^|&)(?:%b)=([^&\s]{1,765})" % _NAME, re.IGNORECASE)
_HEADER = re.compile(_NAME.decode(), re.IGNORECASE)


def named_call(body: bytes, headers: Mapping[str, object]) -> CallId | None:
    """The id of the call that a body or its headers name by one of the usual words; None if they name none."""
    if (found := _IN_JSON.search(body)) is not None:
        named = found[1].decode("utf-8", "replace")
    elif (found := _IN_FORM.search(body)) is not None:
        named = unquote_plus(found[1].decode("utf-8", "replace"))
    else:
        named = next((str(value) for name, value in headers.items() if _HEADER.fullmatch(name)), "")
    is_id = named.isprintable() and 0 < len(named.encode()) <= MAX_ID_BYTES
    return escape_call_id(named) if is_id else None
