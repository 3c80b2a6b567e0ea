"""Standard Webhooks, as OpenAI and others sign: HMAC-SHA256 of ``id.timestamp.body`` in base64.

Sources: standardwebhooks 1.1, ``webhooks.py``; openai 3.57, ``openai/lib/_webhooks.py``. The key is the secret with its
prefix ``whsec_``, base64 behind it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.gateway.signatures.signed import FIVE_MINUTES, Signed, base64_hmac, equal, from_base64

WINDOW: Final = FIVE_MINUTES
ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
PREFIX: Final = "whsec_"


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is the standard's header."""
    return bool(headers.get(SIGNATURE_HEADER))


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether a secret has signed the message, and lately."""
    identity, timestamp = request.header(ID_HEADER), request.header(TIMESTAMP_HEADER)
    if not identity or not request.is_fresh(timestamp):
        return False
    message = f"{identity}.{timestamp}.".encode("utf-8", "surrogateescape") + request.body
    given = [one.removeprefix("v1,") for one in request.header(SIGNATURE_HEADER).split() if one.startswith("v1,")]
    secrets = filter(None, (from_base64(key.removeprefix(PREFIX)) for key in keys))
    return any(equal(base64_hmac(secret, message), one) for secret in secrets for one in given)
