"""Authenticates requests and decides what they may do: Basic, bearer tokens, call tokens. No secret is logged."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from consumer.gateway.problems import Refused
from consumer.observability.log_limiter import LogLimiter
from consumer.settings.gateway_settings import ALL_SCOPES, GatewaySettings, Scope
from consumer.tokens import TokenKeys, TokenRefused
from schemas.ids import CallId, ServiceName

CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="MCP Gateway"'}


class NotAuthenticated(Refused):
    """A request without valid credentials. ``reason`` is for the log; the sender does not learn it."""

    def __init__(self, reason: str, sentence: str = "Authentication required") -> None:
        super().__init__(401, sentence, headers=CHALLENGE)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Grant:
    """What the sender of a request may do.

    ``call_id`` is the one call that the sender may reach; None means any. ``services`` are those that it may reach;
    None means all.
    """

    holder: str
    scopes: frozenset[Scope]
    call_id: CallId | None = None
    services: frozenset[ServiceName] | None = None

    def check(self, scope: Scope, *, call_id: CallId | None = None, service: str | None = None) -> None:
        """Check that the sender has the scope, and may reach the call and the service.

        Raises:
            Refused: 403, with a sentence that names the missing right.
        """
        if scope not in self.scopes:
            raise Refused(403, f"these credentials do not have the scope {scope!r}")
        if call_id is not None and not self.reaches_call(call_id):
            raise Refused(403, "this token is for another call")
        if service is not None and not self.reaches(service):
            raise Refused(403, f"this token does not allow the service {service!r}")

    def reaches_call(self, call_id: CallId) -> bool:
        """Whether the token allows a call."""
        return self.call_id is None or self.call_id == call_id

    def reaches(self, service: str) -> bool:
        """Whether the token allows a service."""
        return self.services is None or service in self.services


EVERYTHING: Final = frozenset(ALL_SCOPES)


class Doorkeeper:
    """Determines a sender's rights from the ``Authorization`` header of its request."""

    def __init__(self, settings: GatewaySettings, keys: TokenKeys) -> None:
        self._open = not settings.guarded
        self.refusals = LogLimiter()
        self._keys = keys
        self._user = (settings.auth_user or "").encode()
        self._password = settings.auth_password.get_secret_value().encode() if settings.auth_password else None
        self._token = settings.auth_token.get_secret_value().encode() if settings.auth_token else None
        self._static = {
            token.sha256.lower(): Grant(
                f"token:{token.name}",
                frozenset(token.scopes),
                None,
                frozenset(ServiceName(name) for name in token.services) or None,
            )
            for token in settings.tokens
        }

    def grant(self, authorization: str | None) -> Grant:
        """Return the rights of a request's sender.

        Raises:
            NotAuthenticated: there are no credentials, or they are not valid.
        """
        if self._open:
            return Grant("anybody on this machine", EVERYTHING)
        found = self._of(authorization or "")
        if found is None:
            raise NotAuthenticated(_reason(authorization or ""))
        return found

    def _of(self, authorization: str) -> Grant | None:
        # The scheme of a bearer is compared as SignalWire's gateway does it, with its case.
        scheme, _, given = authorization.partition(" ")
        return self._bearer(given.strip()) if scheme == "Bearer" else self._basic(authorization)

    def _bearer(self, token: str) -> Grant | None:
        if not token:
            return None
        raw = token.encode("utf-8", "surrogateescape")
        if self._token is not None and hmac.compare_digest(raw, self._token):
            return Grant("operator", EVERYTHING)
        if (static := self._by_hash(raw)) is not None:
            return static
        if self._keys and token.count(".") == 2:
            return self._call_token(token)
        return None

    def _call_token(self, token: str) -> Grant | None:
        try:
            said = self._keys.verify(token)
        except TokenRefused as error:
            raise NotAuthenticated(str(error).partition(": ")[0], str(error)) from None
        return Grant(f"call-token:{said.token_id}", _known(said.scopes), said.call_id, frozenset(said.services) or None)

    def _basic(self, authorization: str) -> Grant | None:
        given = basic_credentials(authorization)
        if given is None:
            return None
        user, password = given
        if self._password is not None:
            same_user = hmac.compare_digest(user, self._user)
            if hmac.compare_digest(password, self._password) and same_user:
                return Grant("operator", EVERYTHING)
        static = self._by_hash(password)
        return static if static is not None and static.holder == f"token:{user.decode('utf-8', 'replace')}" else None

    def _by_hash(self, token: bytes) -> Grant | None:
        # A look-up by the hash of what came tells nothing of the tokens through its time.
        return self._static.get(hashlib.sha256(token).hexdigest())


def basic_credentials(authorization: str) -> tuple[bytes, bytes] | None:
    """User and password of an ``Authorization`` header; None if it has none."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, separator, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if separator else None


def _reason(authorization: str) -> str:
    """Return why credentials are not valid, without any part of them."""
    scheme, _, given = authorization.partition(" ")
    if not given.strip():
        return "no credentials"
    match scheme:
        case "Bearer":
            return "wrong token"
        case _ if scheme.lower() == "basic":
            return "wrong user or password"
        case _:
            return "neither Basic nor Bearer credentials"


def _known(scopes: Iterable[str]) -> frozenset[Scope]:
    return frozenset(scope for scope in ALL_SCOPES if scope in scopes)
