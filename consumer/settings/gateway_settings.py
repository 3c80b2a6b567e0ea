"""The settings of the HTTP gateway: where it listens, who may use it, and its limits."""

import hashlib
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    SecretStr,
    field_validator,
    model_validator,
)

from consumer.processes.service import Size
from consumer.token_keys import is_pem, secret_problem
from schemas.base import Seconds, Section
from schemas.calls import Platform
from schemas.ids import ServiceNameField
from schemas.text import did_you_mean

Scope = Literal["gateway", "mcp", "mint", "events", "console"]
"""The scopes of credentials: the REST API, MCP, minting call tokens, sending call events, watching."""

ALL_SCOPES: tuple[Scope, ...] = ("gateway", "mcp", "mint", "events", "console")

PUBLISHED = {
    "auth_password": ("changeme", "a-password-of-your-own"),
    "auth_token": ("optional-bearer-token",),
    "signing_keys": ("PSKtest1234567890abcdef",),
}
"""Published secrets by their settings: those in SignalWire's sample configurations, and in our guides."""

PUBLISHED_WHAT = {"auth_password": "password", "auth_token": "token", "signing_keys": "key"}


def _several(value: object) -> object:
    """Return one text as a list. In the environment, commas separate several."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _nothing(value: object) -> object:
    """Return None for an empty text, as in SignalWire's ``${MCP_AUTH_TOKEN|}``."""
    return None if value == "" else value


def _several_keys(value: object) -> object:
    """Like ``_several``, but a text without any key is a list with an empty one, which is refused."""
    return (_several(value) or [""]) if isinstance(value, str) else value


def _not_blank(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().strip():
        raise ValueError("is an empty secret, which anybody can use: write the secret, or leave the setting out")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_not_blank)]
"""A secret that is not blank: with an empty key, anybody could sign."""
Keys = Annotated[tuple[Secret, ...], BeforeValidator(_several_keys)]
OptionalSecret = Annotated[Secret | None, BeforeValidator(_nothing)]
OptionalText = Annotated[str | None, BeforeValidator(_nothing)]


class StaticToken(Section):
    """``[[gateway.tokens]]``: a token, configured by its hash."""

    name: str = Field(min_length=1, max_length=100)
    """The token's name in the log."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
    """The SHA-256 of the token, in hex: `printf %s "$TOKEN" | sha256sum`."""
    scopes: tuple[Scope, ...] = Field(min_length=1)
    """The token's scopes: `gateway` (the REST API), `mcp`, `mint` (call tokens), `events`, `console`."""
    services: tuple[ServiceNameField, ...] = ()
    """The services that the token allows. Default: all."""
    calls: Literal["any"] | None = None
    """Must be `"any"` for the scopes `gateway`, `mcp` and `mint`, because such a token reaches every call."""

    @field_validator("sha256")
    @classmethod
    def _of_a_token(cls, digest: str) -> str:
        if digest.lower() == hashlib.sha256(b"").hexdigest():
            raise ValueError("is the SHA-256 of an empty text: TOKEN was not set when the digest was computed")
        return digest

    @model_validator(mode="after")
    def _any_call_is_said(self) -> "StaticToken":
        reaching = [scope for scope in self.scopes if scope in ("gateway", "mcp", "mint")]
        if reaching and self.calls is None:
            raise ValueError(
                f'a token with the scope {" and ".join(reaching)} reaches every call: set calls = "any", '
                "or use call tokens"
            )
        return self


class RateLimits(Section):
    """``[gateway.rate_limits]``: how often one address may call the REST API, like SignalWire's ``rate_limiting``.

    A limit is a text like ``"10 per minute"``. Each route is counted separately. Webhooks and MCP are not limited.
    """

    default: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """The limit for each other route."""
    tools: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """The limit for `GET /services/<service>/tools`."""
    call: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """The limit for `POST /services/<service>/call`."""
    session_delete: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """The limit for `DELETE /sessions/<id>`."""
    storage_uri: str = "memory://"
    """The storage of the counts, in the syntax of the library *limits*. `memory://` counts in each process
    separately."""

    @field_validator("default", "tools", "call", "session_delete")
    @classmethod
    def _readable(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        from limits import parse_many  # noqa: PLC0415 - only who limits rates needs it

        for text in texts:
            try:
                parse_many(text)
            except ValueError:
                raise ValueError(f"{text!r} is not a rate; write it like: 10 per minute") from None
        return texts

    @property
    def any(self) -> bool:
        """Whether there is any limit."""
        return bool(self.default or self.tools or self.call or self.session_delete)


class WebhookSettings(Section):
    """``[gateway.webhooks.<platform>]``: the signatures and responses of one platform's webhooks."""

    keys: Keys = ()
    """The keys that verify its signatures; see [the guide](guides/phones.md). To replace a key, list the old and the
    new one. A webhook without a signature needs credentials of the gateway."""
    window: Seconds | None = None
    """How far the time in a signature may be from now. Default: what the platform recommends, mostly 5 minutes."""
    document: OptionalText = None
    """The response to a request that asks what to do with a call: a file, or a URL that the gateway fetches. Without
    it, the request is answered like any other."""


class GatewaySettings(Section):
    """``[gateway]``: the HTTP gateway.

    Without ``auth_password``, ``auth_token``, ``tokens`` and ``token_keys`` it listens on loopback only.
    """

    host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """The address that it listens on. `0.0.0.0` is every address, and needs credentials."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """The port. The environment variable `PORT` replaces the default. `0`: a free port, which the log names."""
    public_url: Annotated[str | None, Field(pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$")] = None
    """The URL that clients use. Signatures are checked against it, and `Host` has to match it."""
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], BeforeValidator(_several)] = ()
    """The addresses or networks of proxies whose `X-Forwarded-*` headers are trusted."""
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """Further names that `Host` may have. The names of this machine and of `public_url` are always allowed. If neither
    this nor `public_url` is set, every name is allowed."""
    allowed_origins: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """The origins of web pages that may send requests. Default: none. Programs send no `Origin`."""
    auth_user: OptionalText = None
    """The user for Basic authentication, with `auth_password`."""
    auth_password: OptionalSecret = None
    """The password for Basic authentication. It allows everything."""
    auth_token: OptionalSecret = None
    """The operator's bearer token. It allows everything."""
    tokens: tuple[StaticToken, ...] = ()
    """Tokens with scopes, configured by their hash."""
    token_keys: Keys = ()
    """The keys of call tokens: secrets of 32 bytes or more (HS256), or PEM keys (EdDSA). The first signs, and all
    verify."""
    signing_keys: Keys = ()
    """The SignalWire project's signing keys, which verify its webhooks. To replace a key, list the old and the new
    one."""
    webhooks: dict[Platform, WebhookSettings] = Field(default_factory=dict)
    """The keys and responses for webhooks, by platform."""
    call_timeout: Seconds = 25.0
    """How long a tool call over HTTP may take. SignalWire's agents give up after 30 seconds and repeat the request."""
    stream_timeout: Seconds = 300.0
    """How long a tool call over MCP may take if its client gets progress and questions on a stream."""
    call_header: str = Field(default="X-Call-Id", pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")
    """The header that names the call for MCP, if neither the path nor a call token does."""
    open: Literal["beside", "never"] = "beside"
    """Whether the first use over MCP opens the call's session. With `never`, only call events and `session.create` do,
    and a call without a session gets 404."""
    max_body: Annotated[Size, Field(ge=1 << 10, le=64 << 20)] = 4 << 20
    """The most bytes in a request's body."""
    max_in_flight: int = Field(default=1000, ge=1, le=100_000)
    """The most requests that it handles at once. Further ones get 503."""
    max_connections: int = Field(default=4000, ge=1, le=100_000)
    """The most open connections. Further ones are closed."""
    rate_limits: RateLimits = Field(default_factory=RateLimits)
    """How often one address may send requests. Default: without limit."""
    document: str | None = None
    """The response to a document fetch at `/signalwire/events`: a file with SWML or cXML, or a URL that the gateway
    fetches. Without it, the response is 204."""
    tls_cert: Path | None = None
    """The certificate chain (PEM), to serve HTTPS."""
    tls_key: Path | None = None
    """The certificate's private key (PEM). Default: it is in `tls_cert`."""

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
        for problem in filter(None, map(secret_problem, texts)):
            raise ValueError(problem)
        if any(map(is_pem, texts)):
            from consumer.tokens import TokenKeys  # noqa: PLC0415 - only who has PEM keys needs cryptography

            TokenKeys(texts, "")  # says what cannot be read
        return keys

    @model_validator(mode="after")
    def _together(self) -> "GatewaySettings":
        if (self.auth_user is None) != (self.auth_password is None):
            raise ValueError("auth_user and auth_password go together: set both or none")
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key needs tls_cert")
        if self.guarded or self.local:
            return self
        raise ValueError(
            f"host {self.host} can be reached from other machines, but there are no credentials: set auth_user and "
            "auth_password, auth_token, tokens or token_keys, or listen on 127.0.0.1"
        )

    @property
    def published(self) -> tuple[str, ...]:
        """The settings with a published secret."""
        given = {
            "auth_password": (self.auth_password,),
            "auth_token": (self.auth_token,),
            "signing_keys": self.signing_keys,
        }
        return tuple(
            setting
            for setting, secrets in given.items()
            if any(secret is not None and secret.get_secret_value() in PUBLISHED[setting] for secret in secrets)
        )

    @property
    def guarded(self) -> bool:
        """Whether requests need credentials."""
        return bool(self.auth_password or self.auth_token or self.tokens or self.token_keys)

    @property
    def local(self) -> bool:
        """Whether ``host`` can be reached from this machine only."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def credentials(self) -> tuple[str, ...]:
        """The kinds of credentials that are accepted, in words and without a secret."""
        counted = {
            f"user {self.auth_user}": bool(self.auth_password),
            "operator's token": bool(self.auth_token),
            f"tokens {', '.join(token.name for token in self.tokens)}": bool(self.tokens),
            f"call tokens ({counted_keys(self.token_keys)})": bool(self.token_keys),
            f"SignalWire's signatures ({counted_keys(self.signing_keys)})": bool(self.signing_keys),
            f"signatures of {', '.join(self.signed_platforms)}": bool(self.signed_platforms),
        }
        return tuple(words for words, there in counted.items() if there)

    @property
    def signed_platforms(self) -> tuple[str, ...]:
        """The platforms whose webhooks are checked with keys of ``webhooks``."""
        return tuple(platform for platform, told in self.webhooks.items() if told.keys)

    @property
    def documents(self) -> tuple[tuple[str, str], ...]:
        """Each setting that names a document, with its value."""
        named = {"gateway.document": self.document}
        named |= {f"gateway.webhooks.{platform}.document": told.document for platform, told in self.webhooks.items()}
        return tuple((setting, name) for setting, name in named.items() if name)

    @property
    def listens_on(self) -> str:
        """The address to listen on: loopback while a secret is a published one."""
        return "127.0.0.1" if self.published and not self.local else self.host


def certificate_problem(gateway: GatewaySettings) -> tuple[str, str] | None:
    """Return the setting and the reason why HTTPS cannot be served; None if it can be, or is not configured.

    Only a serving gateway checks this. Other commands with the same file need not be able to read the key.
    """
    if gateway.tls_cert is None:
        return None
    import ssl  # noqa: PLC0415 - only who serves HTTPS needs it

    setting, path = ("gateway.tls_key", gateway.tls_key) if gateway.tls_key else ("gateway.tls_cert", gateway.tls_cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(gateway.tls_cert)
    except ssl.SSLError:
        return "gateway.tls_cert", f"{gateway.tls_cert} has no certificate in PEM"
    except OSError as error:
        return "gateway.tls_cert", f"{gateway.tls_cert} cannot be read: {error.strerror}"
    try:
        context.load_cert_chain(gateway.tls_cert, gateway.tls_key, password=lambda: "")  # it would ask on the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return setting, f"the private key in {path} is not that of the certificate in {gateway.tls_cert}"
        if error.reason and error.reason.endswith(("TOO_SMALL", "TOO_WEAK")):
            return "gateway.tls_cert", f"{gateway.tls_cert} cannot be used: {error.reason}"
        return setting, f"{path} has no private key in PEM that opens without a passphrase"
    except OSError as error:
        return setting, f"{path} cannot be read: {error.strerror}"
    return None


AGENTS_TIMEOUT = 28.0
"""The timeout (s) of SignalWire's agents is 30; a part of it is left for the network."""


def second_thoughts(gateway: GatewaySettings) -> list[str]:
    """Return warnings about valid settings that are probably a mistake."""
    thoughts = []
    if gateway.listens_on != gateway.host:
        thoughts += [
            f"gateway.{setting}: everybody knows this published {PUBLISHED_WHAT[setting]}, so the gateway listens on "
            "127.0.0.1 only"
            for setting in gateway.published
        ]
    elif "signing_keys" in gateway.published:  # webhooks come through a proxy or a tunnel, which is on this machine
        thoughts.append(
            "gateway.signing_keys: everybody knows this published key and can sign with it: enter that of your project"
        )
    if (gateway.signing_keys or gateway.signed_platforms) and not (gateway.public_url or gateway.trusted_proxies):
        thoughts.append(
            "neither gateway.public_url nor trusted_proxies is set: a signature covers the URL that was called, so "
            "behind a proxy every webhook is refused"
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


def counted_keys(keys: tuple[SecretStr, ...]) -> str:
    """Return the number of keys in words."""
    return "1 key" if len(keys) == 1 else f"{len(keys)} keys"


_SERVER = ("host", "port", "auth_user", "auth_password", "auth_token")
_RATES = {
    "default_limits": "default",
    "tools_limit": "tools",
    "call_limit": "call",
    "session_delete_limit": "session_delete",
    "storage_uri": "storage_uri",
}


def from_signalwire(
    server: Any, rate_limiting: Any
) -> tuple[dict[str, Any], list[str], dict[tuple[str | int, ...], str]]:
    """Convert the sections ``server`` and ``rate_limiting`` of SignalWire's ``config.json`` to ``[gateway]``.

    The last result has the key in that file of each setting, by its path in ``[gateway]``.

    Source: signalwire-sdk 3.7, ``mcp_gateway/gateway_service.py``. Its ``server`` listens on every address and port
    8080 unless it says otherwise; with the published password on loopback only.
    """
    ours: dict[str, Any] = {}
    warnings: list[str] = []
    names: dict[tuple[str | int, ...], str] = {}
    if isinstance(server, dict):
        names |= {(key,): f"server.{key}" for key in _SERVER if key in server}
        ours = {"host": "0.0.0.0"} | {key: server[key] for key in _SERVER if key in server}  # noqa: S104 - as theirs
        if not ours.get("auth_user") or not ours.get("auth_password"):
            ours.pop("auth_user", None)
            ours.pop("auth_password", None)
        warnings += _ignored("server", server, _SERVER, "gateway")
    if isinstance(rate_limiting, dict):
        known = {name: rate_limiting[key] for key, name in _RATES.items() if key in rate_limiting}
        ours["rate_limits"] = known
        names |= {("rate_limits", name): f"rate_limiting.{key}" for key, name in _RATES.items() if key in rate_limiting}
        warnings += _ignored("rate_limiting", rate_limiting, _RATES, "gateway.rate_limits")
    return ours, warnings, names


def _ignored(section: str, given: Iterable[str], known: Collection[str], ours: str) -> list[str]:
    """Return a warning for each key of a section of SignalWire's file that has no meaning here."""
    return [
        f"{section}.{key}: ignored; {did_you_mean(key, known) or f'see [{ours}]'}".strip()
        for key in given
        if key not in known
    ]
