"""The settings of the bridge to Asterisk: its address, its user, and what it subscribes to."""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from consumer.settings.gateway_settings import OptionalSecret, OptionalText
from schemas.base import Section

_SCHEMES = ("http", "https", "tcp", "tls")
_EXAMPLE = "write http://127.0.0.1:8088 for ARI or tcp://127.0.0.1:5038 for AMI; https:// or tls:// for TLS"


class AsteriskSettings(Section):
    """``[asterisk]``: the settings of ``mcp-sessions bridge asterisk``."""

    url: str = "http://127.0.0.1:8088"
    """The address of the PBX. For ARI, `http://` or `https://` and the part before `/ari`. For the manager interface
    (AMI), `tcp://` or `tls://`."""
    user: OptionalText = None
    """The Asterisk user, of `ari.conf` or of `manager.conf`."""
    password: OptionalSecret = None
    """The user's password."""
    app: str = Field(default="mcp-sessions", min_length=1, max_length=100)
    """ARI: the name of the application. Each bridge needs its own, because only the last to connect gets the events."""
    subscribe_all: bool = True
    """ARI: whether to get the events of every channel. `false`: only of those that the dialplan sends to `Stasis()`."""
    tls_ca: Path | None = None
    """The certificate of a private CA (PEM) to verify the PBX. Default: the CAs that the system trusts."""
    max_kept: int = Field(default=10_000, ge=100, le=1_000_000)
    """The most events that are kept while RabbitMQ is unavailable. Beyond that, events of ended calls are dropped
    first, then the oldest events."""

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or any(letter.isspace() or not letter.isprintable() for letter in url):
            raise ValueError(f"is not the address of a PBX; {_EXAMPLE}")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must be only an address; set user and password separately")
        if parts.scheme in ("tcp", "tls") and parts.path not in ("", "/"):
            raise ValueError("has a path, which the manager interface does not use")
        return url

    @field_validator("user", "app")
    @classmethod
    def _one_line(cls, text: str | None) -> str | None:
        if text is not None and not text.isprintable():
            raise ValueError("must be one line of text")
        return text

    @field_validator("password")
    @classmethod
    def _one_secret_line(cls, secret: OptionalSecret) -> OptionalSecret:
        if secret is not None and not secret.get_secret_value().isprintable():
            raise ValueError("must be one line of text")
        return secret

    @field_validator("tls_ca")
    @classmethod
    def _there(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {str(path)!r}")
        return path

    @property
    def speaks(self) -> Literal["ari", "ami"]:
        """The interface of Asterisk, as the address says."""
        return "ari" if self.url.startswith("http") else "ami"

    @property
    def credentials(self) -> tuple[str, str]:
        """User and password in clear text; empty if not set."""
        return self.user or "", self.password.get_secret_value() if self.password else ""

    @property
    def missing(self) -> tuple[str, ...]:
        """The required settings that are missing."""
        return tuple(name for name in ("user", "password") if getattr(self, name) is None)


def open_password(asterisk: AsteriskSettings) -> list[str]:
    """Return a warning if the password crosses the network unencrypted."""
    parts = urlsplit(asterisk.url)
    if asterisk.password is None or parts.scheme in ("https", "tls") or _is_local(parts.hostname or ""):
        return []
    return ["asterisk.url: the password goes to another machine unencrypted; use https:// or tls://"]


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
