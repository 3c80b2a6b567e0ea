"""The requirements for keys of call tokens. It is apart from ``consumer.tokens``, whose import takes long."""

from typing import Final

MIN_KEY_BYTES: Final = 32
"""RFC 7518, section 3.2: a key for HS256 has at least as many bytes as its hash."""


def is_pem(key: str) -> bool:
    """Return whether a key is a PEM document and not a shared secret."""
    return key.lstrip().startswith("-----BEGIN ")


def secret_problem(key: str) -> str | None:
    """Return what is wrong with a shared secret; None if it is good, or a PEM document."""
    if is_pem(key) or len(key.encode()) >= MIN_KEY_BYTES:
        return None
    return f"a key must have at least {MIN_KEY_BYTES} bytes; make one with: openssl rand -hex 32"
