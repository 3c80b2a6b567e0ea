"""Vapi: a secret in a header, or HMAC-SHA256, as the server's credential says; the key is the secret.

Sources: docs.vapi.ai ``server-url/server-authentication``; the schema ``HMACAuthenticationPlan`` of its API. HMAC is
taken with the default headers (``x-signature``, ``x-timestamp``) or ``x-vapi-signature``, over ``timestamp.body`` or
the body alone, with or without the prefix ``sha256=``, in hexadecimal digits or base64. A secret alone covers neither
body nor time.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.gateway.signatures.signed import FIVE_MINUTES, Signed, base64_hmac, equal, hex_hmac

WINDOW: Final = FIVE_MINUTES
SECRET_HEADER: Final = "x-vapi-secret"  # noqa: S105 - the name of a header
SIGNATURE_HEADERS: Final = ("x-vapi-signature", "x-signature")
TIMESTAMP_HEADERS: Final = ("x-vapi-timestamp", "x-timestamp")


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is a signature, a secret or a bearer token."""
    return any(headers.get(name) for name in (*SIGNATURE_HEADERS, SECRET_HEADER, "authorization"))


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether a key has signed the body, or is the secret that was sent; where there is a signature, it counts."""
    given = next((request.header(name) for name in SIGNATURE_HEADERS if request.header(name)), "")
    if given:
        return _signed(keys, request, given.removeprefix("sha256="))
    secret = request.header(SECRET_HEADER) or request.bearer
    return bool(secret) and any(equal(key, secret) for key in keys)


def _signed(keys: Sequence[str], request: Signed, given: str) -> bool:
    timestamp = next((request.header(name) for name in TIMESTAMP_HEADERS if request.header(name)), "")
    if timestamp and not request.is_fresh(timestamp):
        return False
    message = timestamp.encode("utf-8", "surrogateescape") + b"." + request.body if timestamp else request.body
    return any(
        equal(hex_hmac(key.encode(), message), given.casefold()) or equal(base64_hmac(key.encode(), message), given)
        for key in keys
    )
