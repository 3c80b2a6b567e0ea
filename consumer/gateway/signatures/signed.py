"""The parts of a request that signatures cover, and the operations that all schemes share."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit, urlunsplit

FIVE_MINUTES: Final = 300.0
"""The replay window (s) that most platforms recommend."""

_MILLISECONDS_FROM: Final = 100_000_000_000
"""From this value on a timestamp is in milliseconds. In seconds it would be in the year 5138."""
_STANDARD_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Signed:
    """A request as it was received: ``headers`` by lower-case names, ``url`` the public one with its query.

    ``now`` is Unix time (s); ``window`` how far (s) a signature's own time may be from it.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    now: float
    window: float = FIVE_MINUTES

    def header(self, name: str) -> str:
        """Return the header, or an empty text."""
        return self.headers.get(name, "")

    @property
    def bearer(self) -> str:
        """The token of ``Authorization``, with or without the word ``Bearer``."""
        scheme, _, token = self.header("authorization").strip().rpartition(" ")
        return token if scheme.casefold() in ("", "bearer") else ""

    def is_fresh(self, timestamp: str) -> bool:
        """Return whether a timestamp (s or ms, in digits) is within the replay window."""
        if not (timestamp.isascii() and timestamp.isdecimal()) or len(timestamp) > 16:
            return False
        moment = int(timestamp)
        return abs(self.now - (moment / 1000 if moment >= _MILLISECONDS_FROM else moment)) <= self.window


class Scheme(Protocol):
    """The signature scheme of one platform, which is a module of this package."""

    @property
    def WINDOW(self) -> float:  # noqa: N802 - a constant of the module
        """The replay window (s) unless the configuration sets another one; 0 if the scheme has no timestamp."""

    def is_signed(self, headers: Mapping[str, str]) -> bool:
        """Whether a request carries a signature at all."""

    def holds(self, keys: Sequence[str], request: Signed) -> bool:
        """Return whether one of the keys has signed this request. Each is compared in constant time."""


def hex_hmac(key: bytes, message: bytes, digest: str = "sha256") -> str:
    """Return an HMAC in hexadecimal digits."""
    return hmac.new(key, message, digest).hexdigest()


def base64_hmac(key: bytes, message: bytes, digest: str = "sha256") -> str:
    """Return an HMAC in base64."""
    return base64.b64encode(hmac.digest(key, message, digest)).decode()


def sha256(body: bytes) -> bytes:
    """Return the hash of a body."""
    return hashlib.sha256(body).digest()


def equal(expected: str, given: str) -> bool:
    """Return whether two texts are equal, in constant time."""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogateescape"))


def from_base64(text: str) -> bytes | None:
    """Decode base64, with or without padding; None if it is invalid."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def pairs(header: str) -> Iterator[tuple[str, str]]:
    """Return the parts of ``t=1700000000,v1=...``."""
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        yield name, value


def port_variants(url: str) -> Iterator[str]:
    """Return ``url`` with and without its standard port, because proxies differ in this."""
    yield url
    parts = urlsplit(url)
    standard = _STANDARD_PORTS.get(parts.scheme)
    host = parts.netloc
    try:
        port = parts.port
    except ValueError:
        return
    if standard is not None and port is None:
        yield urlunsplit(parts._replace(netloc=f"{host.rstrip(':')}:{standard}"))
    elif standard is not None and port == standard:
        yield urlunsplit(parts._replace(netloc=host.rpartition(":")[0]))


def without_credentials(url: str) -> str:
    """Return ``url`` without user and password."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"
