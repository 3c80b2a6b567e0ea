"""What a key of call tokens has to be. It is apart from ``consumer.tokens``, which takes long to import."""

from typing import Final

MIN_KEY_BYTES: Final = 32
"""RFC 7518, section 3.2: a key for HS256 has at least as many bytes as its hash."""


def is_pem(key: str) -> bool:
    """Whether a key is a PEM document and not a shared secret."""
    return key.lstrip().startswith("-----BEGIN ")


def secret_problem(key: str) -> str | None:
    """What is wrong with a key that is a shared secret; None if it is good, or a PEM document."""
    if is_pem(key) or len(key.encode()) >= MIN_KEY_BYTES:
        return None
    return f"a key must have at least {MIN_KEY_BYTES} bytes; make one with: openssl rand -hex 32"
