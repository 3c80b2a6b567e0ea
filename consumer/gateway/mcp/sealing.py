"""Seals data that clients carry but cannot read or change: MCP sessions and ids of questions. Pure.

Every replica can open the seals of another one, because the key is derived from secrets that all of them are configured
with. Nothing has to be stored.
"""

import base64
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consumer.settings.gateway_settings import GatewaySettings
from consumer.token_keys import is_pem
from schemas.base import Json
from schemas.ids import CallId, SessionId

REMEMBERED: Final = 1024
"""How many opened sessions are cached. Opening one costs as much as reading a request."""

MAX_SEALED: Final = 4096
"""The most characters of a sealed text that is opened. Servers allow headers of about 8 KiB in all."""


class McpSession(BaseModel):
    """The content of ``Mcp-Session-Id``: the call of the MCP session, and what its client can do."""

    model_config = ConfigDict(frozen=True)

    call_id: CallId | None = Field(default=None, alias="c")
    """The call; None if the client has not named one yet."""
    service: str = Field(alias="s")
    version: str = Field(alias="v")
    capabilities: Json = Field(alias="k")
    nonce: str = Field(alias="r")

    @classmethod
    def new(cls, call_id: CallId | None, service: str, version: str, capabilities: Json) -> "McpSession":
        """Return a new, unique session."""
        return cls(c=call_id, s=service, v=version, k=capabilities, r=secrets.token_hex(12))


class Question(BaseModel):
    """The content of a question's id: which input of which session its answer is for, and what was asked."""

    model_config = ConfigDict(frozen=True)

    session_id: SessionId = Field(alias="s")
    input_id: str = Field(alias="i")
    method: str = Field(alias="m")


class Seal:
    """Seals and opens values. The first secret seals, and all open, so that a secret can be replaced without a gap."""

    def __init__(self, fernet: MultiFernet) -> None:
        self._fernet = fernet
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._session)

    @classmethod
    def of(cls, settings: GatewaySettings, prefix: str) -> "Seal":
        """Return the seal of a gateway with these settings, the same for all its replicas."""
        return cls(MultiFernet([Fernet(_derived(secret)) for secret in _secrets(settings, prefix)]))

    def close(self, value: McpSession | Question) -> str:
        """Encode a value as a token of letters, digits, ``-``, ``_`` and ``=``."""
        return self._fernet.encrypt(value.model_dump_json(by_alias=True).encode()).decode()

    def session(self, text: str) -> McpSession | None:
        """The session that a token stands for; None if this gateway did not make the token."""
        return self._remembered(text)

    def _session(self, text: str) -> McpSession | None:
        opened = self._opened(text)
        try:
            return McpSession.model_validate_json(opened) if opened is not None else None
        except ValidationError:
            return None

    def question(self, text: str) -> Question | None:
        """The question that a token stands for; None if this gateway did not make the token."""
        opened = self._opened(text)
        try:
            return Question.model_validate_json(opened) if opened is not None else None
        except ValidationError:
            return None

    def _opened(self, text: str) -> bytes | None:
        if len(text) > MAX_SEALED:
            return None
        try:
            return self._fernet.decrypt(text.encode("utf-8", "surrogateescape"))
        except InvalidToken:
            return None


def _secrets(settings: GatewaySettings, prefix: str) -> Sequence[bytes]:
    keys = [key.get_secret_value() for key in settings.token_keys]
    secret = [key for key in keys if not is_pem(key) or "PRIVATE" in key]
    if not secret:  # a public key is no secret; the credentials are
        secret = [one.get_secret_value() for one in (settings.auth_password, settings.auth_token) if one is not None]
    secret = secret or [token.sha256.lower() for token in settings.tokens]
    # A gateway on loopback without credentials has nothing to hide: its replicas only have to agree.
    return [one.encode() for one in secret] or [prefix.encode()]


def _derived(secret: bytes) -> bytes:
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"mcp-sessions: MCP over HTTP").derive(secret)
    return base64.urlsafe_b64encode(key)
