"""What can be configured of the HTTP gateway: where it listens, who may ask, what it takes."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    SecretStr,
    field_validator,
    model_validator,
)

from consumer.processes.service import Size
from schemas.base import Seconds, Section
from schemas.calls import Platform
from schemas.ids import ServiceNameField

Scope = Literal["gateway", "mcp", "mint", "events", "console"]
"""What a holder of credentials may do: the REST API, MCP, mint call tokens, report call events, watch."""

ALL_SCOPES: tuple[Scope, ...] = ("gateway", "mcp", "mint", "events", "console")

PUBLISHED_PASSWORD = "changeme"  # noqa: S105 - the password that SignalWire's sample configuration publishes
MIN_KEY_BYTES = 32
"""RFC 7518, section 3.2: a key for HS256 has at least as many bytes as its hash."""


def _several(value: object) -> object:
    """One text is a list of one; the environment separates several by commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _nothing(value: object) -> object:
    """An empty text stands for nothing, as in SignalWire's ``${MCP_AUTH_TOKEN|}``."""
    return None if value == "" else value


Keys = Annotated[tuple[SecretStr, ...], BeforeValidator(_several)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_nothing)]
OptionalText = Annotated[str | None, BeforeValidator(_nothing)]


class StaticToken(Section):
    """``[[gateway.tokens]]``: a token that is known by its hash."""

    name: str = Field(min_length=1, max_length=100)
    """Who holds it; the log names it."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
    """SHA-256 of the token, in hex: `printf %s "$TOKEN" | sha256sum`."""
    scopes: tuple[Scope, ...] = Field(min_length=1)
    """What it allows: `gateway` (the REST API), `mcp`, `mint` (call tokens), `events`, `console`."""
    services: tuple[ServiceNameField, ...] = ()
    """Which services it reaches. Empty: all of them."""
    calls: Literal["any"] | None = None
    """`"any"` must be said for `gateway`, `mcp` and `mint`: such a token reaches every call. Call tokens reach one."""

    @model_validator(mode="after")
    def _any_call_is_said(self) -> "StaticToken":
        reaching = [scope for scope in self.scopes if scope in ("gateway", "mcp", "mint")]
        if reaching and self.calls is None:
            raise ValueError(
                f'a token with the scope {" and ".join(reaching)} reaches every call: say calls = "any", '
                "or give out call tokens instead"
            )
        return self


class RateLimits(Section):
    """``[gateway.rate_limits]``: how often one address may ask the REST API, as SignalWire's ``rate_limiting`` says it.

    A limit is a text like ``"10 per minute"``. Webhooks and MCP are not limited.
    """

    default: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """For requests without a limit of their own."""
    tools: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """For `GET /services/<service>/tools`."""
    call: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """For `POST /services/<service>/call`."""
    session_delete: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """For `DELETE /sessions/<id>`."""
    storage_uri: str = "memory://"
    """Where the counts are kept, as the library *limits* writes it. `memory://` counts for each process alone."""

    @field_validator("default", "tools", "call", "session_delete")
    @classmethod
    def _readable(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        from limits import parse_many  # noqa: PLC0415 - only who limits rates needs it

        for text in texts:
            try:
                parse_many(text)
            except ValueError:
                raise ValueError(f"{text!r} is no rate; write 10 per minute") from None
        return texts

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return bool(self.default or self.tools or self.call or self.session_delete)


class WebhookSettings(Section):
    """``[gateway.webhooks.<platform>]``: how the webhooks of one platform are checked and answered."""

    keys: Keys = ()
    """What its signatures are checked with; [the guide](guides/phones.md) says what that is. Two hold while one is
    replaced. A webhook without a signature needs credentials of the gateway."""
    window: Seconds | None = None
    """How far a signature's own time may be from now. Without it: what the platform recommends, 5 minutes mostly."""
    document: OptionalText = None
    """What answers a request that asks what to do with a call: a file, or a URL that is asked instead. Without it the
    request is answered like any other."""


class GatewaySettings(Section):
    """``[gateway]``: the HTTP gateway.

    Without ``auth_password``, ``auth_token``, ``tokens`` and ``token_keys`` it listens on loopback only.
    """

    host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """Where it listens. `0.0.0.0` is every address, and needs credentials."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """The port; `PORT` of the environment comes before the default. `0`: one of the system's choice, which the log
    tells."""
    public_url: Annotated[str | None, Field(pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$")] = None
    """How callers reach it from outside. Signatures are checked against it, and `Host` has to fit it."""
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], BeforeValidator(_several)] = ()
    """Addresses or networks of proxies whose `X-Forwarded-*` headers are believed."""
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """More names that `Host` may have. The names of this machine and of `public_url` always count; without
    `public_url` and without this, every name does."""
    allowed_origins: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """Origins of web pages that may ask. Without it: none; programs send no `Origin`."""
    auth_user: OptionalText = None
    """User for Basic authentication, with `auth_password`."""
    auth_password: OptionalSecret = None
    """Password for Basic authentication. Its holder may do everything."""
    auth_token: OptionalSecret = None
    """Bearer token of the operator. Its holder may do everything."""
    tokens: tuple[StaticToken, ...] = ()
    """Tokens with scopes, known by their hash."""
    token_keys: Keys = ()
    """Keys of call tokens: secrets of 32 bytes or more (HS256), or PEM keys (EdDSA). The first one signs, all of them
    verify."""
    signing_keys: Keys = ()
    """Signing keys of the SignalWire project, with which its webhooks are checked. Two hold while one is replaced."""
    webhooks: dict[Platform, WebhookSettings] = Field(default_factory=dict)
    """Keys and answers for the webhooks of each platform, by its name."""
    call_timeout: Seconds = 25.0
    """How long a tool call over HTTP may take. SignalWire's agents give up after 30 seconds and ask again."""
    stream_timeout: Seconds = 300.0
    """How long a tool call over MCP may take whose client hears progress and questions on a stream."""
    call_header: str = Field(default="X-Call-Id", pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")
    """The header that names the call for MCP, where neither the path nor a call token does."""
    open: Literal["beside", "never"] = "beside"
    """Whether the first tool call over MCP opens the call's session. `never`: only call events and
    `session.create` do, and a call that nobody told of is answered with 404."""
    max_body: Annotated[Size, Field(ge=1 << 10, le=64 << 20)] = 4 << 20
    """The most bytes that a request's body may have."""
    max_in_flight: int = Field(default=1000, ge=1, le=100_000)
    """How many requests are worked on at once; one more is answered with 503."""
    max_connections: int = Field(default=4000, ge=1, le=100_000)
    """How many connections are held open at once; one more is closed."""
    rate_limits: RateLimits = Field(default_factory=RateLimits)
    """How often one address may ask; nothing is limited unless it is said."""
    document: str | None = None
    """What answers a document fetch that comes to `/signalwire/events`: a file with SWML or cXML, or a URL that is
    asked instead. Without it the fetch is answered with 204."""
    tls_cert: Path | None = None
    """Certificate chain (PEM), to serve HTTPS."""
    tls_key: Path | None = None
    """The certificate's private key (PEM); without it the key is in `tls_cert`."""

    @field_validator("tls_cert", "tls_key")
    @classmethod
    def _there(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {str(path)!r}")
        return path

    @field_validator("token_keys")
    @classmethod
    def _long_enough(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        texts = [key.get_secret_value() for key in keys]
        if any(not is_pem(text) and len(text.encode()) < MIN_KEY_BYTES for text in texts):
            raise ValueError(f"a key has at least {MIN_KEY_BYTES} bytes; make one with: openssl rand -hex 32")
        if any(map(is_pem, texts)):
            from consumer.tokens import TokenKeys  # noqa: PLC0415 - only who has PEM keys needs cryptography

            TokenKeys(texts, "")  # says what cannot be read
        return keys

    @model_validator(mode="after")
    def _together(self) -> "GatewaySettings":
        if (self.auth_user is None) != (self.auth_password is None):
            raise ValueError("auth_user and auth_password go together: set both or none")
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key needs tls_cert beside it")
        if self.published_password or self.guarded or self.local:
            return self
        raise ValueError(
            f"host {self.host} is reached from elsewhere, and there are no credentials: set auth_user and "
            "auth_password, auth_token, tokens or token_keys, or listen on 127.0.0.1"
        )

    @property
    def published_password(self) -> bool:
        """Whether the password is the one that everybody knows."""
        return self.auth_password is not None and self.auth_password.get_secret_value() == PUBLISHED_PASSWORD

    @property
    def guarded(self) -> bool:
        """Whether requests need credentials."""
        return bool(self.auth_password or self.auth_token or self.tokens or self.token_keys)

    @property
    def local(self) -> bool:
        """Whether ``host`` is reached from this machine only."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def credentials(self) -> tuple[str, ...]:
        """What a request may be let in by, in words and without a secret."""
        counted = {
            f"user {self.auth_user}": bool(self.auth_password),
            "operator's token": bool(self.auth_token),
            f"tokens {', '.join(token.name for token in self.tokens)}": bool(self.tokens),
            f"call tokens ({len(self.token_keys)} keys)": bool(self.token_keys),
            f"SignalWire's signatures ({len(self.signing_keys)} keys)": bool(self.signing_keys),
            f"signatures of {', '.join(self.signed_platforms)}": bool(self.signed_platforms),
        }
        return tuple(words for words, there in counted.items() if there)

    @property
    def signed_platforms(self) -> tuple[str, ...]:
        """The platforms whose webhooks are checked with keys of ``webhooks``."""
        return tuple(platform for platform, told in self.webhooks.items() if told.keys)

    @property
    def documents(self) -> tuple[tuple[str, str], ...]:
        """Each setting that names a document, and what it names."""
        named = {"gateway.document": self.document}
        named |= {f"gateway.webhooks.{platform}.document": told.document for platform, told in self.webhooks.items()}
        return tuple((setting, name) for setting, name in named.items() if name)

    @property
    def listens_on(self) -> str:
        """The address that is listened on: loopback while the published password would open the door."""
        return "127.0.0.1" if self.published_password and not self.local else self.host


AGENTS_TIMEOUT = 28.0
"""SignalWire's agents wait 30 s for an answer, and some of that goes for the way."""


def second_thoughts(gateway: GatewaySettings) -> list[str]:
    """Warnings about what is allowed and still hardly meant."""
    thoughts = []
    if gateway.listens_on != gateway.host:
        thoughts.append(
            "gateway.auth_password: everybody knows the published password, so the gateway listens on 127.0.0.1 only"
        )
    if (gateway.signing_keys or gateway.signed_platforms) and not (gateway.public_url or gateway.trusted_proxies):
        thoughts.append(
            "gateway.public_url is not set, and no trusted_proxies: a signature covers the URL that was called, so "
            "behind a proxy no webhook will be believed"
        )
    if gateway.call_timeout > AGENTS_TIMEOUT:
        thoughts.append(
            "gateway.call_timeout: SignalWire's agents give up after 30 s and ask again, before "
            f"{gateway.call_timeout:g} s"
        )
    thoughts += [
        f"{setting}: there is no file {name!r}"
        for setting, name in gateway.documents
        if not name.startswith(("http://", "https://")) and not Path(name).is_file()
    ]
    return thoughts


def is_pem(key: str) -> bool:
    """Whether a key of call tokens is a PEM document and not a shared secret."""
    return key.lstrip().startswith("-----BEGIN ")


_SERVER = ("host", "port", "auth_user", "auth_password", "auth_token")
_RATES = {
    "default_limits": "default",
    "tools_limit": "tools",
    "call_limit": "call",
    "session_delete_limit": "session_delete",
    "storage_uri": "storage_uri",
}


def from_signalwire(server: Any, rate_limiting: Any) -> tuple[dict[str, Any], list[str]]:
    """The sections ``server`` and ``rate_limiting`` of SignalWire's ``config.json`` as ``[gateway]``, and warnings.

    Source: signalwire-sdk 3.7, ``mcp_gateway/gateway_service.py``. Its ``server`` listens on every address and port
    8080 unless it says otherwise; with the published password on loopback only.
    """
    ours: dict[str, Any] = {}
    warnings: list[str] = []
    if isinstance(server, dict):
        ours = {"host": "0.0.0.0"} | {key: server[key] for key in _SERVER if key in server}  # noqa: S104 - as theirs
        if not ours.get("auth_user") or not ours.get("auth_password"):
            ours.pop("auth_user", None)
            ours.pop("auth_password", None)
        warnings += [f"server.{key}: ignored; see [gateway]" for key in server if key not in _SERVER]
    if isinstance(rate_limiting, dict):
        known = {name: rate_limiting[key] for key, name in _RATES.items() if key in rate_limiting}
        ours["rate_limits"] = known
        unknown = [key for key in rate_limiting if key not in _RATES]
        warnings += [f"rate_limiting.{key}: ignored; see [gateway.rate_limits]" for key in unknown]
    return ours, warnings
