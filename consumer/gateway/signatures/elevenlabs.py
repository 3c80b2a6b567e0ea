"""ElevenLabs: ``ElevenLabs-Signature: t=<s>,v0=<hex>``, HMAC-SHA256 of ``t.body`` with the webhook's secret.

Source: elevenlabs 2.78, ``elevenlabs/webhooks_custom.py``. Its replay window is half an hour, and is kept on both sides
here. The request for a conversation's data is not signed: give it a header with credentials of the gateway.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.gateway.signatures.signed import Signed, equal, hex_hmac, pairs

WINDOW: Final = 1800.0
HEADER: Final = "elevenlabs-signature"


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is ElevenLabs' header."""
    return bool(headers.get(HEADER))


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether a secret has signed the body, and lately."""
    parts = dict(pairs(request.header(HEADER)))
    timestamp, given = parts.get("t", ""), parts.get("v0", "")
    if not request.is_fresh(timestamp):
        return False
    message = timestamp.encode() + b"." + request.body
    return any(equal(hex_hmac(key.encode(), message), given) for key in keys)
