"""Daily: HMAC-SHA256 of ``timestamp.body`` in base64, with the secret that was given in base64.

Sources: docs.daily.co ``reference/rest-api/webhooks`` and ``dialin-pinless``. Webhooks and pinless dial-in have headers
and secrets of their own. The timestamp is documented in seconds, and was seen in milliseconds.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.gateway.signatures.signed import FIVE_MINUTES, Signed, base64_hmac, equal, from_base64

WINDOW: Final = FIVE_MINUTES
HEADERS: Final = (
    ("x-webhook-signature", "x-webhook-timestamp"),
    ("x-pinless-signature", "x-pinless-timestamp"),
)


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is one of Daily's headers."""
    return any(headers.get(signature) for signature, _ in HEADERS)


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether a secret has signed the body, and lately."""
    return any(
        _signed(keys, request, request.header(signature), request.header(timestamp))
        for signature, timestamp in HEADERS
        if request.header(signature)
    )


def _signed(keys: Sequence[str], request: Signed, given: str, timestamp: str) -> bool:
    if not request.is_fresh(timestamp):
        return False
    message = timestamp.encode() + b"." + request.body
    secrets = filter(None, (from_base64(key) for key in keys))
    return any(equal(base64_hmac(secret, message), given) for secret in secrets)
