"""Decodes a body into an object before any translator sees it: JSON, or else a form.

The content type is believed only where the bytes leave a choice. FreeSWITCH says ``text/json``, bridges forward HTTP
bodies without any type or under a wrong one, and charset parameters are everywhere; the text is UTF-8, except for
single bytes that come from SIP headers. Each such byte stays in the text as a lone surrogate, which is replaced in
texts and refused in ids.
"""

import codecs
import json
import re
from urllib.parse import parse_qsl

from consumer.telephony.translation import Payload, Unusable
from schemas.json_values import MAX_VALUES, has_more_values
from schemas.requests import GZIP
from schemas.text import decoded, first_odd

MAX_QUOTING = 3
"""How often JSON may be nested inside a JSON string. Bridges that encode encoded bodies do it once."""

MAX_FORM_FIELDS = 1000

_JSON_OPENINGS = ("{", "[", '"')
_FORM = re.compile(r"\??[A-Za-z_][\w.\-\[\]%+]*=\S*")
_JSON_NAMES = {list: "an array", str: "text", bool: "true or false", int: "a number", float: "a number"}


def decode(body: bytes, content_type: str | None = None) -> Payload:
    """Return the object that a body holds.

    A key that comes twice keeps its last value: FreeSWITCH's CHANNEL_HANGUP_COMPLETE has ``Hangup-Cause`` twice.

    Raises:
        Unusable: broken, nested too deep, or no object.
    """
    if body.startswith(GZIP):
        raise Unusable("the body is compressed with gzip; send JSON without a content_encoding")
    found: object = decoded(body.removeprefix(codecs.BOM_UTF8))
    for _ in range(1 + MAX_QUOTING):
        if not isinstance(found, str):
            break
        found = _parsed(found.strip().removeprefix("\ufeff"), content_type)
    if not isinstance(found, dict):
        raise Unusable(f"the body must be a JSON object or a form, is {json_name(found)}")
    return found


def json_name(value: object) -> str:
    """Return the name of a JSON value's type, for a sentence."""
    return "null" if value is None else _JSON_NAMES.get(type(value), "an object")


def _parsed(text: str, content_type: str | None) -> object:
    if not text:
        raise Unusable("the body is empty")
    if not text.startswith(_JSON_OPENINGS) and (_FORM.fullmatch(text) or _declares_form(content_type)):
        return _form(text)
    if has_more_values(text.encode("utf-8", "surrogatepass")):  # once more, for JSON that is quoted within JSON
        raise Unusable(f"the body has more than {MAX_VALUES} JSON values")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise Unusable("the body is JSON nested too deeply to read") from error
    except json.JSONDecodeError as error:
        if (odd := first_odd(text)) is not None:
            raise Unusable(f"the body is not UTF-8 (byte {odd}), so it cannot be JSON") from error
        expected = "broken JSON" if text.startswith(_JSON_OPENINGS) else "neither JSON nor a form"
        raise Unusable(f"the body is {expected}: {error.msg} (character {error.pos})") from error
    except ValueError as error:
        raise Unusable(f"the body is JSON with a value that cannot be read: {error}") from error


def _declares_form(content_type: str | None) -> bool:
    return content_type is not None and "x-www-form-urlencoded" in content_type.casefold()


def _form(text: str) -> dict[str, str]:
    """Parse a form, or the query of a GET; escapes that are not UTF-8 are kept, as in a body."""
    try:
        pairs = parse_qsl(
            text.removeprefix("?"), keep_blank_values=True, errors="surrogateescape", max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError as error:
        raise Unusable(f"the body is a form that cannot be read: {error}") from error
    return dict(pairs)
