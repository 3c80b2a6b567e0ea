"""jambonz: ``Jambonz-Signature: t=<s>,v1=<hex>``, HMAC-SHA256 of ``t.body`` with the account's webhook secret.

Source: jambonz/node-client ``lib/utils/webhook-response.js``, and docs.jambonz.org. The header may have several ``v1``.
A self-hosted jambonz uses HTTP Basic instead: give it credentials of the gateway.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.gateway.signatures.signed import FIVE_MINUTES, Signed, equal, hex_hmac, pairs

WINDOW: Final = FIVE_MINUTES
HEADER: Final = "jambonz-signature"


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is jambonz' header."""
    return bool(headers.get(HEADER))


def holds(keys: Sequence[str], request: Signed) -> bool:
    """Whether a secret has signed the body, and lately."""
    parts = list(pairs(request.header(HEADER)))
    timestamp = dict(parts).get("t", "")
    if not request.is_fresh(timestamp):
        return False
    message = timestamp.encode() + b"." + request.body
    given = [value for name, value in parts if name == "v1"]
    return any(equal(hex_hmac(key.encode(), message), one) for key in keys for one in given)
