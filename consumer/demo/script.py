"""The calls of the demo: events as the platforms send them, with new call ids in every run."""

import secrets
import string
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

SHORT_TIMEOUT = 4.0
"""The idle timeout (s) of the one call whose session is left to expire."""

TIMEOUT = 60.0
"""The idle timeout (s) of all other calls."""


def _uuid() -> str:
    return str(uuid.uuid4())


def _kazoo_id() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(20))


def _asterisk_id() -> str:
    return f"{int(time.time())}.{secrets.randbelow(900) + 100}"


@dataclass(frozen=True, slots=True)
class PlatformExchange:
    """A platform's own exchange; its name on the broker begins with the demo's prefix."""

    name: str
    type: str
    routing_key: str
    """The routing key that the platform uses, with the call id of the samples."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of one platform: how its calls start and end."""

    platform: str
    source: str
    """The name of its translator."""
    started: str
    ended: str
    call_id: str
    """The call id in both samples."""
    todos: tuple[str, ...]
    """The todos that the call adds to its list."""
    fresh_id: Callable[[], str] = _uuid
    content_type: str = JSON
    exchange: PlatformExchange | None = None
    """The platform's exchange. None: the exchange of call events."""
    over_http: bool = False
    """Whether its events and tool calls go to the HTTP gateway, and not over RabbitMQ."""
    expires: bool = False
    """Whether the call goes quiet, so that its session expires before the call ends."""

    def body(self, event: str, call_id: str) -> bytes:
        """Return an event as the platform sends it, with another call's id."""
        return files("consumer.demo").joinpath("events", event).read_bytes().replace(*self._ids(call_id))

    def routing_key(self, call_id: str) -> str:
        """Return the routing key of an event of the call."""
        return self.exchange.routing_key.replace(self.call_id, call_id) if self.exchange else ""

    def _ids(self, call_id: str) -> tuple[bytes, bytes]:
        return self.call_id.encode(), call_id.encode()


PARTS = (
    Part(
        "RELAY",
        "relay",
        "relay_started.json",
        "relay_ended.json",
        "c3f1b5d3-98db-45a6-a20b-2cf0dd311efa",
        ("Look up the order", "Call back at nine"),
        over_http=True,
    ),
    Part(
        "SWML",
        "swml_status",
        "swml_started.json",
        "swml_ended.json",
        "9238cb78-953f-4fd2-83ca-4e8a4701500e",
        ("Confirm the appointment",),
        over_http=True,
    ),
    Part(
        "cXML",
        "cxml",
        "cxml_started.form.txt",
        "cxml_ended.form.txt",
        "990cfb21-7c52-4cc7-825c-8e9b40f448db",
        ("Send the invoice again", "Note the new address", "Offer the annual plan"),
        content_type=FORM,
        over_http=True,
    ),
    Part(
        "SWAIG",
        "swaig",
        "swaig_started.json",
        "swaig_ended.json",
        "4e3441a1-9992-4a2b-bb6c-8afcf337389f",
        ("Book a taxi for five",),
        over_http=True,
    ),
    Part(
        "FreeSWITCH",
        "freeswitch_amqp",
        "freeswitch_started.json",
        "freeswitch_ended.json",
        "9d6242e5-8e45-4dfb-bed5-408ee218d68c",
        ("Transfer to accounting", "Ask for the customer number"),
        content_type="text/json",
        exchange=PlatformExchange(
            "TAP.Events",
            "topic",
            "FreeSWITCH.fs1%2Eexample%2Enet.CHANNEL_CREATE..9d6242e5-8e45-4dfb-bed5-408ee218d68c",
        ),
    ),
    Part(
        "Kazoo",
        "kazoo",
        "kazoo_started.json",
        "kazoo_ended.json",
        "h2k9v0q7tr4mz81xw3bn",
        ("Check the voicemail",),
        fresh_id=_kazoo_id,
        exchange=PlatformExchange("callevt", "topic", "call.CHANNEL_CREATE.h2k9v0q7tr4mz81xw3bn"),
        expires=True,
    ),
    Part(
        "Wazo",
        "wazo",
        "wazo_started.json",
        "wazo_ended.json",
        "1741788930.12",
        ("Tell Alice about the meeting",),
        fresh_id=_asterisk_id,
        exchange=PlatformExchange("wazo-headers", "headers", "calls.call.created"),
    ),
)
