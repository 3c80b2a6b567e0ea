"""Where the broker is: a URL that is never printed with its password."""

from collections.abc import Mapping
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from pydantic import SecretStr

from consumer.observability import MASK

VARIABLES = ("AMQP_URL", "CLOUDAMQP_URL", "RABBITMQ_URL")
"""Where it is looked for, in this order; a variable that is empty counts as not set."""

DEFAULT = "amqp://guest:guest@localhost:5672/"


class BrokerUrl(SecretStr):
    """An AMQP URL; ``str`` and ``repr`` mask its password, ``get_secret_value()`` is the URL to connect with."""

    def _display(self) -> str:
        return without_password(self.get_secret_value())


def variable_of(env: Mapping[str, str]) -> str | None:
    """The variable that says where the broker is; None when none does and the default counts."""
    return next((name for name in VARIABLES if env.get(name)), None)


def problem_of(url: str) -> str | None:
    """What is wrong with a broker URL, without repeating any of it; None when nothing is."""
    example = "write amqp://user:password@host:5672/vhost, or amqps:// for TLS"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return f"is no URL: its host or port cannot be read (a @ : / in the password is written %40 %3A %2F); {example}"
    if parts.scheme not in ("amqp", "amqps"):
        return f"must begin with amqp:// or amqps://; {example}"
    if not parts.hostname:
        return f"names no host; {example}"
    # aiormq takes everything but a 0 for a yes, a "false" too.
    if parse_qs(parts.query, keep_blank_values=True).get("no_verify_ssl", ["0"])[-1] not in ("0", "1"):
        return "says no_verify_ssl with something else than 0 or 1; leave it out, and certificates are verified"
    if port == 0:
        return f"has port 0; {example}"
    if "/" in unquote(parts.path).lstrip("/") and "%2f" not in parts.path.lower():
        return "names a vhost with a / in it, which is written %2F"
    return None


def vhost_of(url: str) -> str:
    """The vhost that a URL names; without one it is ``/``."""
    return unquote(urlsplit(url).path.removeprefix("/")) or "/"


def is_unverified(url: str) -> bool:
    """Whether the URL asks for TLS that proves nothing about who answers."""
    parts = urlsplit(url)
    return parts.scheme == "amqps" and parse_qs(parts.query).get("no_verify_ssl", ["0"])[-1] != "0"


def without_password(url: str) -> str:
    """The URL as it may be shown: no password, no query (which may hold the path of a key)."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else (parts.hostname or "")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return MASK
    user = f"{parts.username}:{MASK}@" if parts.username else ""
    return urlunsplit((parts.scheme, f"{user}{host}{port}", parts.path, "", ""))
