"""JWTs that prove who sent a body, as Vonage and LiveKit use them."""

import warnings
from typing import Any, Final

import jwt
from jwt.warnings import InsecureKeyLengthWarning

_UNTIMED: Final[Any] = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
"""Options for a token whose times are checked later, with the request's time and its replay window."""


def claims_of(token: str, secret: str, issuer: str | None = None) -> dict[str, Any] | None:
    """Return the claims of a token that ``secret`` has signed (HS256); None if it has not, or if it is no token.

    The platform chooses how long its secret is, so a short one is no reason to warn at each request.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureKeyLengthWarning)
        try:
            claims: dict[str, Any] = jwt.decode(token, secret, algorithms=["HS256"], issuer=issuer, options=_UNTIMED)
        except (jwt.PyJWTError, ValueError):
            return None
    return claims
