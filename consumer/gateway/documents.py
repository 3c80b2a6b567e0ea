"""Serves the document that a platform executes for a call (SWML, cXML, an NCCO, verbs), from a file or a URL."""

from pathlib import Path
from typing import Final

import httpx2
import structlog
from starlette.responses import Response

from consumer.gateway.problems import Refused
from schemas.calls import CallEvent, CallKind

log = structlog.get_logger(__name__)

FETCH_TIMEOUT: Final = 4.0
"""How long (s) the other server may take. SignalWire waits for five."""

TYPES: Final = {".json": "application/json", ".yaml": "application/yaml", ".yml": "application/yaml"}
XML: Final = "application/xml"


class Documents:
    """Serves the document that ``gateway.document`` names: a file, which is read each time, or a URL."""

    def __init__(self, source: str | None) -> None:
        self._url = source if source and source.startswith(("http://", "https://")) else None
        self._file = Path(source) if source and self._url is None else None

    def __bool__(self) -> bool:
        return bool(self._url or self._file)

    @staticmethod
    def wanted(event: CallEvent, body: bytes) -> bool:
        """Return whether a request asks what to do with a call, and does not only report it.

        For SWML and cXML this is a start that is no status callback. jambonz' call hook contains the call's INVITE, and
        its status hook does not.
        """
        told = event.attributes.get("event")
        match event.source:
            case "swml_status" | "cxml":
                marks = (b"event_type", b"CallbackSource", b"SequenceNumber", b"specversion")
                return event.kind is CallKind.STARTED and not any(mark in body for mark in marks)
            case "vonage":
                return event.kind is CallKind.STARTED and "status" not in event.attributes
            case "plivo":
                return told == "StartApp"
            case "jambonz":
                return event.kind is CallKind.STARTED and told is None and b'"sip"' in body
            case "vapi":
                return told == "assistant-request"
            case "elevenlabs":
                return event.kind is CallKind.STARTED
            case _:
                return False

    async def answer(self, body: bytes, content_type: str) -> Response:
        """Return the document.

        Raises:
            Refused: 503, it is not available.
        """
        if self._file is not None:
            return self._from_file(self._file)
        assert self._url is not None
        try:
            async with httpx2.AsyncClient(timeout=FETCH_TIMEOUT, follow_redirects=False) as http:
                found = await http.post(self._url, content=body, headers={"content-type": content_type})
                found.raise_for_status()
        except httpx2.HTTPError as error:
            log.warning("document.unavailable", error=type(error).__name__)
            raise Refused(503, "the document's server does not respond") from None
        return Response(found.content, media_type=found.headers.get("content-type", "application/json"))

    @staticmethod
    def _from_file(file: Path) -> Response:
        try:
            content = file.read_bytes()
        except OSError as error:
            log.error("document.unreadable", file=str(file), error=error.strerror)
            raise Refused(503, "the document cannot be read") from None
        return Response(content, media_type=TYPES.get(file.suffix.lower(), XML))
