"""LiveKit: a JWT in ``Authorization`` (HS256, the API secret) whose ``sha256`` is the body's hash in base64.

Source: livekit-api 1.2, ``livekit/api/webhook.py``, ``access_token.py``. A key is written ``<API key>:<secret>``: the
token has to be issued by that API key. The secret alone also does.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.gateway.signatures.signed import Signed, equal, from_base64, sha256
from consumer.gateway.signatures.vouched import claims_of

WINDOW: Final = 60.0
"""The leeway (s) for clocks. The token itself has an expiry."""


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is a JWT."""
    return headers.get("authorization", "").count(".") == 2


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether a token of one of the API keys names this body and has not run out."""
    return any(_vouches(key, request) for key in keys)


def _vouches(key: str, request: Signed) -> bool:
    issuer, _, secret = key.rpartition(":")
    claims = claims_of(request.bearer, secret, issuer or None)
    if claims is None:
        return False
    until, since = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(until, int | float) or request.now > until + request.window:
        return False
    if not isinstance(since, int | float) or request.now < since - request.window:
        return False
    named = from_base64(str(claims.get("sha256") or ""))
    return named is not None and equal(sha256(request.body).hex(), named.hex())
