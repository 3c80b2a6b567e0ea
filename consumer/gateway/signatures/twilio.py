"""Twilio: HMAC of the URL and the form's fields, sorted, with the account's auth token.

Source: twilio 9.13, ``twilio/request_validator.py``. JSON is covered by its hash in the query (``bodySHA256``). A key
that is shared among accounts signs with SHA-256 and says so in ``X-Twilio-Webhooks-Signature-Settings``. There is no
timestamp, so a request that was recorded can be sent again; repeated events change nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs, parse_qsl, urlsplit

from consumer.gateway.signatures.signed import Signed, base64_hmac, equal, port_variants, without_credentials

WINDOW: Final = 0.0
HEADER: Final = "x-twilio-signature"
SETTINGS_HEADER: Final = "x-twilio-webhooks-signature-settings"
DIGESTS: Final = {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}
MAX_FIELDS: Final = 2000
"""Twilio sends no form with more fields. Sorting it would cost more than refusing it."""


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is Twilio's header."""
    return bool(headers.get(HEADER))


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether an auth token has signed the URL and the body."""
    digest = DIGESTS.get(_algorithm(request.header(SETTINGS_HEADER)))
    fields = _fields(request)
    if digest is None or fields is None:
        return False
    given = request.header(HEADER)
    return any(
        equal(base64_hmac(key.encode(), (variant + fields).encode("utf-8", "surrogateescape"), digest), given)
        for key in keys
        for variant in port_variants(without_credentials(request.url))
    )


def _algorithm(settings: str) -> str:
    for part in settings.split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            return value.strip().upper()
    return "HMAC_SHA1"


def _fields(request: Signed) -> str | None:
    """Return the signed text behind the URL; None if nothing would cover the body."""
    named = parse_qs(urlsplit(request.url).query).get("bodySHA256")
    if named is not None:
        return "" if equal(hashlib.sha256(request.body).hexdigest(), named[0]) else None
    if not request.body:
        return ""
    try:
        fields = parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return None
    return "".join(name + value for name, value in sorted(set(fields))) or None
