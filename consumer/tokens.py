"""Call tokens: JWTs (RFC 7519) that let their holder reach one call and some of its services, and nothing else.

Every holder of a key can mint them: the gateway's token route, ``mcp-sessions calls token``, or ``SessionClient``
without a request. Keys come in a list: the first one signs, all of them verify, so a key is replaced without a gap. A
secret signs with HS256; a PEM key signs with EdDSA (Ed25519), and its public half can only verify.
"""

import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from consumer.token_keys import is_pem, secret_problem
from schemas.ids import CallId, ServiceName, escape_call_id

ISSUER: Final = "mcp-sessions"
DEFAULT_LIFETIME: Final = 14_400.0
"""How long (s) a token is valid by default: as long as a session may live by default."""

MAX_LIFETIME: Final = 7 * 86_400.0
LEEWAY: Final = 5.0
"""How far (s) the clocks of minter and verifier may be apart."""

_CLAIMS: Final = ("iss", "aud", "exp", "iat", "jti", "call")


class TokenRefused(Exception):
    """A token is not valid. The message says why, and repeats nothing of the token."""


class KeyUnusable(ValueError):
    """A key is a secret that is too short, or no Ed25519 key in PEM, or cannot sign."""


@dataclass(frozen=True, slots=True)
class CallToken:
    """The content of a verified token."""

    call_id: CallId
    services: tuple[ServiceName, ...]
    """The services that it allows. Empty: all of the call."""
    scopes: tuple[str, ...]
    token_id: str
    expires_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class _Key:
    key_id: str
    algorithm: str
    verifies: Any
    signs: Any


class TokenKeys:
    """The keys of a gateway or of a program that mints tokens; ``audience`` is the prefix of the workers' names."""

    def __init__(self, keys: Sequence[str], audience: str) -> None:
        """Read the keys.

        Raises:
            KeyUnusable: one of them is neither a secret of 32 bytes or more nor an Ed25519 key.
        """
        self._keys = [_read(key) for key in keys]
        self._by_id = {key.key_id: key for key in self._keys}
        self._audience = audience

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def can_mint(self) -> bool:
        """Whether the first key can sign."""
        return bool(self._keys) and self._keys[0].signs is not None

    def mint(
        self,
        call_id: str,
        services: Sequence[str] = (),
        *,
        scopes: Sequence[str] = ("mcp", "gateway"),
        lifetime: float = DEFAULT_LIFETIME,
    ) -> str:
        """Make a token for a call, under the id that its platform gave it, that holds for ``lifetime`` seconds.

        Raises:
            KeyUnusable: there is no key, or the first one can only verify.
        """
        if not self._keys:
            raise KeyUnusable("there is no key to sign with; make one with: openssl rand -hex 32")
        if not self.can_mint:
            raise KeyUnusable("no key signs: the first of token_keys must be a secret or a private Ed25519 key")
        key = self._keys[0]
        now = time.time()
        claims = {
            "iss": ISSUER,
            "aud": self._audience,
            "iat": int(now),
            "exp": int(now + min(lifetime, MAX_LIFETIME)),
            "jti": uuid.uuid4().hex,
            "call": escape_call_id(call_id),
            "svc": list(services),
            "scope": " ".join(scopes),
        }
        return jwt.encode(claims, key.signs, algorithm=key.algorithm, headers={"kid": key.key_id})

    def verify(self, token: str) -> CallToken:
        """Verify a token, and return what it allows.

        Raises:
            TokenRefused: none of the keys signed it, it has expired, or it is not for this gateway.
        """
        try:
            named = jwt.get_unverified_header(token).get("kid")
        except jwt.InvalidTokenError:
            raise TokenRefused("this is not a token") from None
        key = self._by_id.get(str(named))
        for one in [key] if key is not None else self._keys:
            try:
                claims = jwt.decode(
                    token,
                    one.verifies,
                    algorithms=[one.algorithm],
                    audience=self._audience,
                    issuer=ISSUER,
                    leeway=LEEWAY,
                    options={"require": list(_CLAIMS)},
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                continue
            except jwt.ExpiredSignatureError:
                raise TokenRefused("the token has expired") from None
            except jwt.InvalidTokenError as error:
                raise TokenRefused(f"the token is invalid: {error}") from None
            return _said(claims)
        raise TokenRefused("the token was not signed by a key of this gateway")


def _said(claims: dict[str, Any]) -> CallToken:
    call, services, scope = claims["call"], claims.get("svc", []), claims.get("scope", "")
    if not (isinstance(call, str) and call and isinstance(scope, str) and isinstance(services, list)):
        raise TokenRefused("the token's claims are not those of a call token")
    return CallToken(
        CallId(call),
        tuple(ServiceName(str(name)) for name in services),
        tuple(scope.split()),
        str(claims["jti"]),
        float(claims["exp"]),
    )


def _read(key: str) -> _Key:
    if (problem := secret_problem(key)) is not None:
        raise KeyUnusable(problem)
    if not is_pem(key):
        secret = key.encode()
        return _Key(hashlib.sha256(secret).hexdigest()[:12], "HS256", secret, secret)
    pem = key.strip().encode()
    try:
        private = load_pem_private_key(pem, password=None) if b"PRIVATE" in pem else None
        public = private.public_key() if private is not None else load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        problem = "a PEM key of token_keys cannot be read; it must be an Ed25519 key without a password"
        raise KeyUnusable(problem) from None
    if not isinstance(public, Ed25519PublicKey) or not (private is None or isinstance(private, Ed25519PrivateKey)):
        raise KeyUnusable("a PEM key of token_keys is not an Ed25519 key")
    return _Key(hashlib.sha256(public.public_bytes_raw()).hexdigest()[:12], "EdDSA", public, private)
