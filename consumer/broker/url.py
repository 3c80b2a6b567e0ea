"""AMQP URLs: checks them, and shows them without secrets. Pure, and quick to import."""

import base64
import binascii
import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from consumer.observability import MASK

EXAMPLE: Final = "write amqp://user:password@host:5672/vhost, or amqps:// for TLS"
ESCAPES: Final = "%40 for @, %2F for /, %23 for #, %3F for ?, %3A for :, %25 for %"

MAX_HEARTBEAT: Final = 65_534
MAX_VHOST: Final = 255
AUTH: Final = ("plain", "external")


def problem_of(url: str) -> str | None:
    """Return what is wrong with a broker URL, without quoting it; None if nothing is.

    The text repeats the name of a parameter only if it is a known one, because other text may be secret.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return f"is not a URL: its host or port cannot be read; in user, password and vhost write {ESCAPES}; {EXAMPLE}"
    if parts.scheme not in ("amqp", "amqps"):
        return f"must begin with amqp:// or amqps://; {EXAMPLE}"
    if not _escaped(parts, url):
        return f"has an @, / or # in the wrong place; in user, password and vhost write {ESCAPES}; {EXAMPLE}"
    if not parts.hostname:
        return f"has no host; {EXAMPLE}"
    if any(not 0 < len(label) < 64 for label in _labels(parts.hostname)):
        return f"has an invalid host name; {EXAMPLE}"
    if port == 0:
        return f"has port 0; {EXAMPLE}"
    if "/" in parts.path.lstrip("/"):
        return "has a / in its vhost; write it as %2F"
    if len(vhost_of(url).encode()) > MAX_VHOST:
        return f"has a vhost of more than {MAX_VHOST} bytes"
    return next((fault for name, value in _query(parts) if (fault := _fault(name, value))), None)


def _escaped(parts: SplitResult, url: str) -> bool:
    """Return whether host and port are as intended. A / or # in a password would cut the host off.

    The rest of the URL then contains an @, which is not allowed after the host.
    """
    behind = (parts.path, parts.query, parts.fragment)
    return parts.netloc.count("@") <= 1 and not any("@" in part for part in behind) and "#" not in url


def _labels(host: str) -> list[str]:
    """Return the labels of a host's name. The last dot may stand for the root."""
    return host.removesuffix(".").split(".")


def unknown_parameters(url: str) -> list[str]:
    """Return warnings about unknown parameters of a URL. They do not repeat the values."""
    return [_unknown(name) for name, _ in _query(urlsplit(url)) if name not in _PARAMETERS]


def _unknown(name: str) -> str:
    near = get_close_matches(name.casefold(), _PARAMETERS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(_PARAMETERS))}"
    return f"the broker's URL has an unknown parameter {name[:32]!r}; {hint}"


def _query(parts: SplitResult) -> list[tuple[str, str]]:
    return parse_qsl(parts.query, keep_blank_values=True)


def _fault(name: str, value: str) -> str | None:
    known = _PARAMETERS.get(name)
    if known is None or known[0](value):
        return None
    return f"has an invalid value for ?{name}=: {known[1]}"


def _whole(most: int) -> Callable[[str], bool]:
    return lambda value: value.isascii() and value.isdigit() and len(value) < 10 and int(value) <= most


def _seconds(value: str) -> bool:
    try:
        return 0 <= float(value) < math.inf
    except ValueError:
        return False


def _is_base64(value: str) -> bool:
    try:
        return bool(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        return False


_FILE = (bool, "it must name a file")
_PARAMETERS: Final[dict[str, tuple[Callable[[str], bool], str]]] = {
    "heartbeat": (_whole(MAX_HEARTBEAT), f"it must be whole seconds, {MAX_HEARTBEAT} at most; 0 for no heartbeats"),
    "timeout": (_whole(10**9), "it must be whole seconds"),
    "auth": (lambda value: value.lower() in AUTH, f"it must be {', '.join(AUTH[:-1])} or {AUTH[-1]}"),
    "name": (lambda _: True, ""),
    "no_verify_ssl": (  # aiormq takes everything but a 0 for a yes, a "false" too
        lambda value: value in ("0", "1"),
        "it must be 0 or 1; leave it out, and certificates are verified",
    ),
    "cafile": _FILE,
    "capath": (bool, "it must name a folder"),
    "certfile": _FILE,
    "keyfile": _FILE,
    "cadata": (_is_base64, "it must be base64"),
    "interleave": (_whole(10**9), "it must be a whole number"),
    "happy_eyeballs_delay": (_seconds, "it must be seconds"),
}
"""The parameters of the AMQP library: a check of the value, and a description of a valid one."""


def vhost_of(url: str) -> str:
    """Return the vhost that a URL names, or ``/``."""
    return unquote(urlsplit(url).path.removeprefix("/")) or "/"


def user_of(url: str) -> str:
    """Return the user that a URL names, or ``guest``."""
    return unquote(urlsplit(url).username or "") or "guest"


def is_unverified(url: str) -> bool:
    """Return whether the URL asks for TLS without verifying the certificate."""
    parts = urlsplit(url)
    return parts.scheme == "amqps" and dict(_query(parts)).get("no_verify_ssl", "0") != "0"


def without_password(url: str) -> str:
    """Return the URL without its password and its query, which may contain the path of a key.

    Nothing of an invalid URL is returned, because a part of the password may look like its host.
    """
    if problem_of(url) is not None:
        return MASK
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else (parts.hostname or "")
    port = f":{parts.port}" if parts.port else ""
    user = f"{parts.username}:{MASK}@" if parts.username else ""
    return urlunsplit((parts.scheme, f"{user}{host}{port}", parts.path, "", ""))


def place_of(url: str) -> str:
    """Return scheme, host, port and vhost of a valid URL."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
