"""Telnyx: Ed25519 over ``timestamp|body``; the key is the public one of the Mission Control portal, in base64.

Source: telnyx 4.189, ``telnyx/lib/webhook_verification.py``. Call Control and TeXML are signed alike.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.gateway.signatures.signed import FIVE_MINUTES, Signed, from_base64

WINDOW: Final = FIVE_MINUTES
SIGNATURE_HEADER: Final = "telnyx-signature-ed25519"
TIMESTAMP_HEADER: Final = "telnyx-timestamp"


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is Telnyx's header."""
    return bool(headers.get(SIGNATURE_HEADER))


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether one of the public keys verifies the body's signature, and the signature is recent."""
    timestamp = request.header(TIMESTAMP_HEADER)
    signature = from_base64(request.header(SIGNATURE_HEADER))
    if signature is None or not request.is_fresh(timestamp):
        return False
    message = timestamp.encode() + b"|" + request.body
    return any(_verifies(key, signature, message) for key in keys)


def _verifies(key: str, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only who is called by Telnyx needs it
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    raw = from_base64(key.strip())
    try:
        Ed25519PublicKey.from_public_bytes(raw or b"").verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
