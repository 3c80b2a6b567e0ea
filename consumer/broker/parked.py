"""A parked message: the headers that say why and whence, how it is known again, and what it is when it is replayed.

Two kinds of messages are in the parking lot. A worker parks what it cannot handle, and says why in headers of its own.
The broker puts there what it could not deliver (too many deliveries, expired), and its ``x-death`` tells.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

from consumer.broker.message import CALL_HEADER, Delivery, Headers, Message, own_headers
from consumer.broker.topology import Names
from schemas.ids import CallId, call_id_of, routing_key

REASON_HEADER = "x-mcp-reason"
ERROR_HEADER = "x-mcp-error"
EXCHANGE_HEADER = "x-mcp-exchange"
ROUTING_KEY_HEADER = "x-mcp-routing-key"
QUEUE_HEADER = "x-mcp-queue"
PARKED_AT_HEADER = "x-mcp-parked-at"

HEADERS = (REASON_HEADER, ERROR_HEADER, EXCHANGE_HEADER, ROUTING_KEY_HEADER, QUEUE_HEADER, PARKED_AT_HEADER)
"""What a worker writes onto a message that it parks."""

_OURS = "x-mcp-"
"""How the name of every header begins that workers write, for each other or for people."""

ERROR_LETTERS = 2000
ID_LETTERS = 12


def parked(delivery: Delivery, reason: str, problem: str) -> Message:
    """A delivery as it goes to the parking lot. Its reply address and its expiry end here."""
    message = delivery.message
    return Message(
        body=message.body,
        type=message.type,
        message_id=message.message_id or Message(b"").message_id,
        correlation_id=message.correlation_id,
        headers=own_headers(message.headers)
        | {
            REASON_HEADER: reason,
            ERROR_HEADER: problem[:ERROR_LETTERS],
            EXCHANGE_HEADER: delivery.exchange,
            ROUTING_KEY_HEADER: delivery.routing_key,
            QUEUE_HEADER: delivery.queue,
            PARKED_AT_HEADER: datetime.now(UTC).isoformat(),
        },
        content_type=message.content_type,
        timestamp=message.timestamp,
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message was published, and from which queue it was parked."""

    exchange: str
    routing_key: str
    queue: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A message of the parking lot; ``without_body`` is what a list keeps of it."""

    id: str
    """Made of all that the message is, so that it is the same at every look; only equals share one."""
    message: Message
    origin: Origin
    reason: str
    error: str
    parked_at: datetime | None
    call: str | None
    """The call that it is addressed to, in the form of routing keys; raw call events are addressed to none."""
    size: int
    """Bytes of the body."""

    @classmethod
    def of(cls, message: Message, names: Names) -> Self:
        """What ``message``, as it stands in the parking lot, was."""
        given = message.headers
        death = _first_death(given)
        origin = _origin(given, death)
        at = death.get("time")
        return cls(
            id=_id_of(message, at),
            message=message,
            origin=origin,
            reason=str(given.get(REASON_HEADER) or death.get("reason") or "unknown"),
            error=str(given.get(ERROR_HEADER) or _told_by_the_broker(death)),
            parked_at=_moment(given.get(PARKED_AT_HEADER)) or _moment(at),
            call=_call_of(given, origin, names),
            size=len(message.body),
        )

    def without_body(self) -> Self:
        """The same, with nothing of the body held."""
        return replace(self, message=replace(self.message, body=b""))

    def replayed(self, names: Names) -> tuple[Message, str, str]:
        """The message as it is published again, its exchange and its routing key.

        It begins anew, under its message id: without the broker's headers and without any of ours, which tell of the
        hops, the deaths and the deadline of its former life. What was on its way between workers takes the durable
        lane: the inbox that it was in may be gone, and only the lane knows whether somebody owns the call.
        """
        headers = {
            name: value for name, value in own_headers(self.message.headers).items() if not name.startswith(_OURS)
        }
        message = replace(self.message, headers=headers, reply_to=None, expiration=None)
        exchange, key = self.origin.exchange, self.origin.routing_key
        internal = exchange in (names.unowned, names.orphans) or (not exchange and names.worker_of_inbox(key))
        if internal and self.call is not None:
            return message, names.sessions, self.call
        return message, exchange, key


@dataclass(frozen=True, slots=True)
class Filter:
    """Which parked messages are meant; what is None says nothing, and all that is said must fit."""

    reason: str | None = None
    type: str | None = None
    call: str | None = None
    since: datetime | None = None
    before: datetime | None = None

    def fits(self, parked: Parked) -> bool:
        """Whether this message is meant; one whose time nobody knows is neither ``since`` nor ``before``."""
        at = parked.parked_at
        return (
            self.reason in (None, parked.reason)
            and self.type in (None, parked.message.type)
            and (self.call is None or routing_key(call_id_of(self.call)) == parked.call)
            and (self.since is None or (at is not None and at >= self.since))
            and (self.before is None or (at is not None and at < self.before))
        )


def _first_death(headers: Headers) -> Mapping[str, Any]:
    """The oldest entry of ``x-death``, whose newest comes first."""
    deaths = headers.get("x-death")
    entries = [one for one in deaths if isinstance(one, dict)] if isinstance(deaths, list) else []
    return entries[-1] if entries else {}


def _origin(headers: Headers, death: Mapping[str, Any]) -> Origin:
    if EXCHANGE_HEADER in headers:
        return Origin(*(str(headers.get(name, "")) for name in (EXCHANGE_HEADER, ROUTING_KEY_HEADER, QUEUE_HEADER)))
    keys = death.get("routing-keys")
    key = keys[0] if isinstance(keys, list) and keys else ""
    return Origin(str(death.get("exchange", "")), str(key), str(death.get("queue", "")))


def _told_by_the_broker(death: Mapping[str, Any]) -> str:
    match death.get("reason"):
        case "delivery_limit":
            return f"given back too often by the consumers of {death.get('queue')}"
        case "expired":
            return f"nobody took it from {death.get('queue')} in time"
        case "rejected":
            return f"a consumer of {death.get('queue')} rejected it"
        case _:
            return ""


def _call_of(headers: Headers, origin: Origin, names: Names) -> str | None:
    if call := headers.get(CALL_HEADER):
        return routing_key(CallId(str(call)))
    addressed = origin.exchange in (names.sessions, names.requests, names.unowned, names.orphans)
    return origin.routing_key or None if addressed else None


def _moment(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        return datetime.fromisoformat(str(value)) if value else None
    except ValueError:  # a foreign publisher's
        return None


def _id_of(message: Message, at: object) -> str:
    told = repr((message.message_id, message.type, sorted(own_headers(message.headers).items(), key=str), str(at)))
    return hashlib.sha256(told.encode("utf-8", "surrogateescape") + b"\0" + message.body).hexdigest()[:ID_LETTERS]
