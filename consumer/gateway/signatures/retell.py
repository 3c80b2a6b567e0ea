"""Retell: ``X-Retell-Signature: v=<ms>,d=<hex>``, HMAC-SHA256 of the body and the milliseconds behind it.

Source: retell-sdk 6.2, ``retell/lib/webhook_auth.py``. The key is the API key that has the webhook badge.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from consumer.gateway.signatures.signed import FIVE_MINUTES, Signed, equal, hex_hmac

WINDOW: Final = FIVE_MINUTES
HEADER: Final = "x-retell-signature"
_FORM: Final = re.compile(r"v=([0-9]{1,16}),d=([0-9a-f]{64})")


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is Retell's header."""
    return bool(headers.get(HEADER))


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether an API key has signed the body, and lately."""
    found = _FORM.fullmatch(request.header(HEADER))
    if found is None or not request.is_fresh(found[1]):
        return False
    message = request.body + found[1].encode()
    return any(equal(hex_hmac(key.encode(), message), found[2]) for key in keys)
