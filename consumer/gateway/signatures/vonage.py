"""Vonage: a JWT in ``Authorization`` (HS256, the signature secret) whose ``payload_hash`` is the body's SHA-256.

Sources: vonage-jwt 1.1, ``verify_jwt.py``; developer.vonage.com ``getting-started/concepts/webhooks``. The SDK checks
the token alone. Here it has to name the body's hash and to have been issued lately, since else it would vouch for any
body. A request by GET has no body to name, so set webhooks to POST.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.gateway.signatures.signed import FIVE_MINUTES, Signed, equal, sha256
from consumer.gateway.signatures.vouched import claims_of

WINDOW: Final = FIVE_MINUTES


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is a JWT."""
    return headers.get("authorization", "").count(".") == 2


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether a token of one of the secrets names this body, and was issued lately."""
    return any(_vouches(key, request) for key in keys)


def _vouches(key: str, request: Signed) -> bool:
    claims = claims_of(request.bearer, key)
    if claims is None:
        return False
    issued, until = claims.get("iat"), claims.get("exp")
    if not isinstance(issued, int | float) or abs(request.now - issued) > request.window:
        return False
    if until is not None and not (isinstance(until, int | float) and until > request.now):
        return False
    return equal(sha256(request.body).hex(), str(claims.get("payload_hash")).casefold())
