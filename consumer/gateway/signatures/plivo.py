"""Plivo, version 3: HMAC-SHA256 of the URL, the fields and a nonce, with the auth token of the account or subaccount.

Source: plivo 4.63, ``plivo/utils/signature_v3.py``. Several signatures are separated by commas while a token is
replaced. There is no timestamp; the nonce only makes signatures differ, and is not remembered.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

from consumer.gateway.signatures.signed import Signed, base64_hmac, equal, without_credentials

WINDOW: Final = 0.0
SIGNATURE_HEADERS: Final = ("x-plivo-signature-v3", "x-plivo-signature-ma-v3")
NONCE_HEADER: Final = "x-plivo-signature-v3-nonce"
MAX_FIELDS: Final = 2000


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is one of Plivo's headers."""
    return any(headers.get(name) for name in SIGNATURE_HEADERS)


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether an auth token has signed the URL, the fields and the nonce."""
    base = _base(request)
    nonce = request.header(NONCE_HEADER)
    if base is None or not nonce:
        return False
    given = [one.strip() for name in SIGNATURE_HEADERS for one in request.header(name).split(",") if one.strip()]
    message = f"{base}.{nonce}".encode("utf-8", "surrogateescape")
    return any(equal(base64_hmac(key.encode(), message), one) for key in keys for one in given)


def _base(request: Signed) -> str | None:
    """Return the signed text before the nonce: the URL with its query sorted, a point, and the sorted form."""
    parts = urlsplit(without_credentials(request.url))
    try:
        query = _sorted(parts.query)
        form = _sorted(request.body.decode()) if request.method != "GET" else []
    except ValueError:
        return None
    if request.body and not form:
        return None  # nothing would cover it
    base = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    if query or form:
        base += "?" + "&".join(f"{name}={value}" for name, value in query)
    if query and form:
        base += "."
    return base + "".join(name + value for name, value in form)


def _sorted(text: str) -> list[tuple[str, str]]:
    fields = parse_qs(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    return [(name, value) for name in sorted(fields) for value in sorted(fields[name])]
