"""``/events`` and ``/signalwire/events``: publishes webhooks about calls unchanged.

``/events`` takes what any translator knows, ``/events/<platform>`` the events of one platform. A request is answered
when RabbitMQ has it. SignalWire connects within two seconds and reads for five; an event that could not be published
within four is answered with 503, and most platforms send it again.
"""

from collections.abc import Sequence
from typing import Final, cast, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from consumer.client import SessionClient
from consumer.gateway.documents import Documents
from consumer.gateway.exchange import answer, body_of, path_parameter, read_items, told
from consumer.gateway.problems import Refused
from consumer.gateway.senders import Sender, Senders
from consumer.settings.gateway_settings import GatewaySettings
from consumer.telephony import Ignored, Translated, Translation, Unrecognised, translate
from schemas.calls import CallKind, Platform

FORM: Final = "application/x-www-form-urlencoded"

ANSWERED_WITH_JSON: Final = frozenset({"daily", "elevenlabs", "vapi"})
"""Sources whose platforms require 200 with JSON, and not just any success."""

NOTHING_TO_ADD: Final = {"type": "conversation_initiation_client_data"}
"""The response to ElevenLabs' request for a conversation's data: there is none."""


class Webhooks:
    """Receives webhooks about calls."""

    def __init__(self, client: SessionClient, settings: GatewaySettings, senders: Senders) -> None:
        self._client = client
        self._settings = settings
        self._senders = senders
        documents = {platform: Documents(given.document) for platform, given in settings.webhooks.items()}
        if not documents.get("signalwire"):
            documents["signalwire"] = Documents(settings.document)
        self._documents = documents

    def routes(self) -> list[Route]:
        """Return the routes of this endpoint."""
        return [
            Route("/events", self.take_any, methods=["GET", "POST"]),
            Route("/events/{platform}", self.take_one, methods=["GET", "POST"]),
            Route("/signalwire/events", self.take, methods=["GET", "POST"]),
        ]

    async def take(self, request: Request) -> Response:
        """Publish an event of SignalWire."""
        sent, body, content_type = await self._read(request)
        sender = self._senders.identify(request, sent)
        return await self._published(request, sender, [body], content_type, self._documents["signalwire"])

    async def take_any(self, request: Request) -> Response:
        """Publish a call event of any platform."""
        sent, body, content_type = await self._read(request)
        bodies = read_items(body)
        meant = translate(bodies[0], content_type=content_type)
        sender = self._senders.identify_any(request, sent, _source(meant))
        return await self._published(request, sender, bodies, content_type)

    async def take_one(self, request: Request) -> Response:
        """Publish an event of one platform.

        An event of another platform is refused. An unknown event is published, and a worker makes it a dead letter with
        the reason. So the platform does not count it as a failed delivery.
        """
        name = path_parameter(request, "platform")
        if name not in get_args(Platform):
            raise Refused(404, f"unknown platform {name[:60]!r}; known: {', '.join(get_args(Platform))}")
        platform = cast("Platform", name)
        sent, body, content_type = await self._read(request)
        sender = self._senders.identify(request, sent, platform)
        bodies = read_items(body)
        for one in bodies:
            meant = translate(one, content_type=content_type, platform=platform)
            if isinstance(meant, Unrecognised):
                other = translate(one, content_type=content_type)
                if not isinstance(other, Unrecognised):
                    raise Refused(
                        400, f"this is an event of {_source(other)}, but this address accepts only events of {platform}"
                    )
        return await self._published(request, sender, bodies, content_type, self._documents.get(platform))

    async def _read(self, request: Request) -> tuple[bytes, bytes, str]:
        """Return the original body, the body or else the query, and the content type.

        Raises:
            Refused: 400, 408 or 413.
        """
        sent = await body_of(request, self._settings.max_body)
        if sent:
            return sent, sent, request.headers.get("content-type", "application/json")
        query: bytes = request.scope["query_string"]  # cXML, Plivo and Vonage can be set to GET
        if not query:
            raise Refused(400, "the request is empty: it has neither a body nor a query")
        return sent, query, FORM

    async def _published(
        self,
        request: Request,
        sender: Sender,
        bodies: Sequence[bytes],
        content_type: str,
        documents: Documents | None = None,
    ) -> Response:
        """Publish events. Return 204, or the answer that the platform expects."""
        meant: Translation | None = None
        for body in bodies:
            meant = translate(body, content_type=content_type)
            call_id = meant.event.call_id if isinstance(meant, Translated) else None
            told(request).call_id = call_id
            told(request).more["taken_as"] = _word(meant)
            sender.check("events", call_id=call_id)
        for body in bodies:
            await self._senders.publish(self._client, body, content_type)
        if documents and isinstance(meant, Translated) and Documents.wanted(meant.event, bodies[-1]):
            return await documents.answer(bodies[-1], content_type)
        return _answer(meant)


def _answer(meant: Translation | None) -> Response:
    source = _source(meant)
    if source == "elevenlabs" and isinstance(meant, Translated) and meant.event.kind is CallKind.STARTED:
        return answer(NOTHING_TO_ADD)
    return answer({}) if source in ANSWERED_WITH_JSON else Response(status_code=204)


def _word(meant: Translation) -> str:
    """Return the word for an event in the log: its source and kind, or its outcome."""
    match meant:
        case Translated(event=event):
            return f"{event.source}.{event.kind.value}"
        case Ignored():
            return "ignored"
        case Unrecognised():
            return "dead_lettered"


def _source(meant: Translation | None) -> str:
    match meant:
        case Translated(event=event):
            return event.source
        case Ignored(source=source):
            return source
        case _:
            return ""
