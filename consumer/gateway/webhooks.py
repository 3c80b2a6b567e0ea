"""``/signalwire/events``: every webhook that tells of a call, published as it came and answered when RabbitMQ has it.

SignalWire connects within two seconds and reads for five; an event that could not be published within four is
answered with 503, and is repeated by whoever repeats.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from consumer.client import SessionClient
from consumer.gateway import signatures
from consumer.gateway.access import EVERYTHING, Grant
from consumer.gateway.documents import Documents
from consumer.gateway.exchange import addressed, body_of, granted, told
from consumer.gateway.problems import Refused
from consumer.settings.gateway import GatewaySettings
from consumer.telephony import Translated, translate
from schemas.errors import ClientError

CONFIRM_TIMEOUT: Final = 4.0
"""How long (s) RabbitMQ's confirm is waited for."""

FORM: Final = "application/x-www-form-urlencoded"

Sender = Grant
"""Who sent a webhook: SignalWire, by its signature, or a holder of credentials."""

SIGNALWIRE: Final = Grant("signalwire", EVERYTHING - {"console", "mint"})


@dataclass(frozen=True, slots=True)
class Senders:
    """Tells who sent a webhook, and publishes what it says."""

    settings: GatewaySettings

    def identify(self, request: Request, body: bytes) -> Sender:
        """The sender: SignalWire when one of the signing keys fits, else the holder of the credentials.

        Raises:
            Refused: 403 without a body when the signature does not hold, 401 when there are no credentials either.
        """
        keys = [key.get_secret_value() for key in self.settings.signing_keys]
        if keys and signatures.is_signed(request.headers):
            if signatures.holds(keys, request.headers, addressed(request).url, body):
                told(request).holder = SIGNALWIRE.holder
                return SIGNALWIRE
            raise Refused(403, "the signature does not hold", bare=True)
        if keys and not self.settings.guarded:
            raise Refused(403, "there is no signature", bare=True)
        return granted(request)

    async def publish(self, client: SessionClient, body: bytes, content_type: str) -> None:
        """Publish what a platform said; returns when RabbitMQ has it.

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


class Webhooks:
    """Takes webhooks that tell of calls."""

    def __init__(
        self, client: SessionClient, settings: GatewaySettings, senders: Senders, documents: Documents
    ) -> None:
        self._client = client
        self._settings = settings
        self._senders = senders
        self._documents = documents

    def routes(self) -> list[Route]:
        """Its routes."""
        return [Route("/signalwire/events", self.take, methods=["GET", "POST"])]

    async def take(self, request: Request) -> Response:
        """Publish what the request says of a call; 204, or the document where one is asked for."""
        sent = await body_of(request, self._settings.max_body)
        sender = self._senders.identify(request, sent)
        body, content_type = sent, request.headers.get("content-type", "application/json")
        if not body:  # cXML can be set to GET
            body, content_type = request.url.query.encode(), FORM
        if not body:
            raise Refused(400, "the request says nothing: neither a body nor a query")
        meant = translate(body, content_type=content_type)
        call_id = meant.event.call_id if isinstance(meant, Translated) else None
        told(request).call_id = call_id
        sender.check("events", call_id=call_id)
        await self._senders.publish(self._client, body, content_type)
        if self._documents and isinstance(meant, Translated) and self._documents.wanted(meant.event, body):
            return await self._documents.answer(body, content_type)
        return Response(status_code=204)
