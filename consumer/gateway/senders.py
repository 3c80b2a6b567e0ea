"""Finds the sender of a webhook: a platform, by its signature, or a holder of credentials."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.requests import Request

from consumer.client import SessionClient
from consumer.gateway.access import EVERYTHING, Grant
from consumer.gateway.exchange import addressed, granted, told
from consumer.gateway.problems import Refused
from consumer.gateway.signatures import COVERS_URL, SCHEMES, Scheme, Signed
from consumer.gateway.signatures.signed import without_credentials
from consumer.observability.log_limiter import LogLimiter
from consumer.settings.gateway_settings import GatewaySettings
from consumer.telephony import PLATFORMS
from schemas.calls import Platform
from schemas.errors import ClientError

log = structlog.get_logger(__name__)

CONFIRM_TIMEOUT: Final = 4.0
"""How long (s) to wait for RabbitMQ's confirm."""

Sender = Grant
"""The sender of a webhook."""

SIGNALWIRE: Final = Grant("signalwire", EVERYTHING - {"console", "mint"})
"""SignalWire's scopes as a sender: its agents also call tools."""


@dataclass(frozen=True, slots=True)
class _SignedPlatform:
    """A platform whose webhooks are signed: the scheme, the keys, and the replay window (s)."""

    platform: Platform
    scheme: Scheme
    keys: tuple[str, ...]
    window: float

    @property
    def sender(self) -> Sender:
        return SIGNALWIRE if self.platform == "signalwire" else Grant(self.platform, frozenset({"events"}))

    def holds(self, request: Request, body: bytes) -> bool:
        if not body and self.platform not in COVERS_URL:
            return False  # what it says would be in its query
        url = addressed(request).url
        signed = Signed(request.method, url, request.headers, body, time.time(), self.window)
        return self.scheme.holds(self.keys, signed)


class Senders:
    """Authenticates the sender of a webhook, and publishes its event."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._guarded = settings.guarded
        self._checked = _checked(settings)
        self._refusals = LogLimiter()

    def identify(self, request: Request, body: bytes, platform: Platform = "signalwire") -> Sender:
        """Return the sender of a platform's webhook: the platform if one of its keys signed it, or who has credentials.

        Raises:
            Refused: 403 without a body if the signature is wrong, 401 if there are no credentials either.
        """
        checked = self._checked.get(platform)
        if checked is None:
            return granted(request)
        return self._sender([checked], request, body)

    def identify_any(self, request: Request, body: bytes, source: str) -> Sender:
        """Return the sender of a webhook that the translator ``source`` recognises, for all of its platforms.

        Raises:
            Refused: as ``identify``.
        """
        platforms = [one for one in self._checked.values() if source in PLATFORMS[one.platform]]
        return self._sender(platforms, request, body) if self._checked else granted(request)

    def _sender(self, platforms: Sequence[_SignedPlatform], request: Request, body: bytes) -> Sender:
        signed = [one for one in platforms if one.scheme.is_signed(request.headers)]
        for one in signed:
            if one.holds(request, body):
                told(request).holder = one.sender.holder
                return one.sender
        # Some schemes use the header that the gateway's credentials are in.
        others = {name: value for name, value in request.headers.items() if name != "authorization"}
        if self._guarded and not any(one.scheme.is_signed(others) for one in signed):
            return granted(request)
        reason = "the signature is wrong" if signed else "there is no signature"
        self._tell_refused(reason, signed or platforms, request)
        raise Refused(403, reason, bare=True)

    def _tell_refused(self, reason: str, platforms: Sequence[_SignedPlatform], request: Request) -> None:
        """Log why a webhook is refused. The sender of a wrong signature does not learn it."""
        unsaid = self._refusals.due(reason)
        if unsaid is None:
            return
        url, query, _ = without_credentials(addressed(request).url).partition("?")
        covers_url = any(one.platform in COVERS_URL for one in platforms)
        log.warning(
            "webhook.refused",
            reason=reason,
            platforms=[one.platform for one in platforms],
            url=url + ("?..." if query else ""),
            hint="the signature covers the URL, query included: if the platform calls another one, set "
            "gateway.public_url; if not, compare the keys"
            if covers_url
            else "compare the keys of gateway.webhooks, and this machine's clock",
            unsaid=unsaid,
        )

    async def publish(self, client: SessionClient, body: bytes, content_type: str) -> None:
        """Publish an event of a platform. Returns when RabbitMQ has confirmed it.

        Raises:
            Refused: 503, it could not be confirmed in time.
        """
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                await client.publish_call_event(body, content_type=content_type)
        except TimeoutError:
            raise Refused(503, "RabbitMQ did not confirm the event in time; send it again") from None
        except ClientError as error:  # an event that is published twice changes nothing
            raise Refused(503, f"{error.message}; send the event again", code=error.code.value) from error


def _checked(settings: GatewaySettings) -> Mapping[Platform, _SignedPlatform]:
    found: dict[Platform, _SignedPlatform] = {}
    for platform, scheme in SCHEMES.items():
        given = settings.webhooks.get(platform)
        secrets = given.keys if given else ()
        if platform == "signalwire":
            secrets = (*settings.signing_keys, *secrets)
        if secrets:
            window = given.window if given and given.window is not None else scheme.WINDOW
            found[platform] = _SignedPlatform(
                platform, scheme, tuple(key.get_secret_value() for key in secrets), window
            )
    return found
