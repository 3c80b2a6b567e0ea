"""SignalWire's signatures of webhooks. Pure.

Source: signalwire-sdk 3.7, ``core/security/webhook_validator.py``; the schemes are those of its documentation. RELAY,
SWML and SWAIG sign the URL and the raw body (scheme A, SHA-1 and SHA-256); cXML signs the URL and the form's fields,
sorted (scheme B), or the URL alone where its query has the body's hash (``bodySHA256``).

The SDK also accepts a signature of the URL alone beside any body. This module takes it for an empty body only: it
covers no other.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs, parse_qsl, urlsplit

from consumer.gateway.signatures.signed import Signed, equal, port_variants, without_credentials

WINDOW: Final = 0.0
SHA256_HEADER: Final = "x-signalwire-sha256-signature"
SHA1_HEADERS: Final = ("x-signalwire-signature", "x-twilio-signature")

MAX_FIELDS: Final = 2000
"""No telephony platform sends a form with more fields. Sorting it would cost more than refusing it."""


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether a request carries a signature at all; ``headers`` are looked up in lower case."""
    return any(headers.get(name) for name in (SHA256_HEADER, *SHA1_HEADERS))


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether one of ``keys`` has signed this request, in constant time for each.

    Where there is a SHA-256 signature, that one counts.
    """
    headers, body = request.headers, request.body
    url = without_credentials(request.url)
    stronger = headers.get(SHA256_HEADER)
    if stronger:
        return any(equal(_hex(key, url.encode() + body, "sha256"), stronger) for key in keys)
    given = [headers[name] for name in SHA1_HEADERS if headers.get(name)]
    return any(_signed_with(key, signature, url, body) for key in keys for signature in given)


def _signed_with(key: str, signature: str, url: str, body: bytes) -> bool:
    matches = equal(_hex(key, url.encode() + body, "sha1"), signature)
    fields = _sorted_fields(body)
    for variant in port_variants(url):
        if fields and equal(_base64(key, variant + fields), signature):
            matches = matches or _hash_fits(variant, body)
        if equal(_base64(key, variant), signature):
            matches = matches or _covers_body(variant, body)
    return matches


def _covers_body(url: str, body: bytes) -> bool:
    """Return whether a signature of the URL alone also covers the body."""
    return not body if _body_hash(url) is None else _hash_fits(url, body)


def _hash_fits(url: str, body: bytes) -> bool:
    named = _body_hash(url)
    return named is None or equal(hashlib.sha256(body).hexdigest(), named)


def _body_hash(url: str) -> str | None:
    found = parse_qs(urlsplit(url).query, keep_blank_values=True).get("bodySHA256")
    return found[-1] if found else None


def _sorted_fields(body: bytes) -> str:
    """Return a form's fields, sorted by name, each as name and value; empty if the body is no form."""
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return ""
    return "".join(name + value for name, value in sorted(fields, key=lambda field: field[0]))


def _hex(key: str, message: bytes, digest: str) -> str:
    return hmac.new(key.encode(), message, digest).hexdigest()


def _base64(key: str, message: str) -> str:
    return base64.b64encode(hmac.digest(key.encode(), message.encode(), "sha1")).decode()
