"""A dead letter: its headers, its id, and the message that a replay makes of it.

Two kinds of messages are in the dead-letter queue. A worker makes a dead letter of a message that it cannot handle, and
says why in headers. It publishes to the exchange of the dead-letter queue, which only workers may use. The broker
dead-letters messages that it could not deliver (too many deliveries, expired), and says so in ``x-death``. Any other
message in that queue cannot be trusted.

An operator has more rights than the publisher of the original message. So a replay publishes only where that publisher
could have published, never where one of its headers says.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

from consumer.broker.message import CALL_HEADER, Delivery, Headers, Message, own_headers
from consumer.broker.topology import Names
from schemas.ids import CallId, call_id_of, routing_key
from schemas.internal import INTERNAL
from schemas.requests import MADE_OF_EVENTS

REASON_HEADER = "x-mcp-reason"
ERROR_HEADER = "x-mcp-error"
EXCHANGE_HEADER = "x-mcp-exchange"
ROUTING_KEY_HEADER = "x-mcp-routing-key"
QUEUE_HEADER = "x-mcp-queue"
DEAD_LETTERED_AT_HEADER = "x-mcp-parked-at"
ORIGIN_HEADER = "x-mcp-origin"
BY_WORKER = "worker"
"""The origin of a message that a worker published to an exchange that only workers may use."""

HEADERS = (
    REASON_HEADER,
    ERROR_HEADER,
    EXCHANGE_HEADER,
    ROUTING_KEY_HEADER,
    QUEUE_HEADER,
    DEAD_LETTERED_AT_HEADER,
    ORIGIN_HEADER,
    CALL_HEADER,
)
"""The headers that a worker adds to a dead letter."""

WORKER_REASONS = frozenset({"unrecognised", "invalid_message", "unknown_type", "too_large", "crash_loop", "defect"})
"""The reasons for which a worker dead-letters a message."""

REASONS = WORKER_REASONS | {"rejected", "maxlen", "delivery_limit", "expired"}
"""Every reason of a dead letter: those of a worker, and those that RabbitMQ writes into ``x-death``."""

_OURS = "x-mcp-"
"""The prefix of all headers that workers write."""

ERROR_LETTERS = 2000
ID_LETTERS = 12


class NotReplayable(ValueError):
    """Only a worker could have published this message, or its publisher is unknown."""


_INTERNAL = frozenset(one.type for one in INTERNAL)


def _without_ours(headers: Headers) -> Headers:
    return {name: value for name, value in own_headers(headers).items() if not name.startswith(_OURS)}


def as_dead_letter(delivery: Delivery, reason: str, problem: str) -> Message:
    """Return the message to publish to the dead-letter queue. Reply address, expiry and forged headers are removed."""
    message = delivery.message
    kept = own_headers(message.headers) if delivery.by_worker else _without_ours(message.headers)
    return Message(
        body=message.body,
        type=message.type,
        message_id=message.message_id or Message(b"").message_id,
        correlation_id=message.correlation_id,
        headers=kept
        | {
            REASON_HEADER: reason,
            ERROR_HEADER: problem[:ERROR_LETTERS],
            EXCHANGE_HEADER: delivery.exchange,
            ROUTING_KEY_HEADER: delivery.routing_key,
            QUEUE_HEADER: delivery.queue,
            DEAD_LETTERED_AT_HEADER: datetime.now(UTC).isoformat(),
        }
        | ({ORIGIN_HEADER: BY_WORKER} if delivery.by_worker else {})
        | ({CALL_HEADER: delivery.named_call} if delivery.named_call else {}),
        content_type=message.content_type,
        timestamp=message.timestamp,
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message was published, and from which queue it became a dead letter."""

    exchange: str
    routing_key: str
    queue: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the dead-letter queue; ``without_body`` is what a list keeps of it."""

    id: str
    """A hash of the whole message, so that every look gives the same id. Only identical messages share one."""
    message: Message
    origin: Origin
    reason: str
    error: str
    dead_lettered_at: datetime | None
    call: str | None
    """The call that the message is addressed to, or that the call event names, as a routing key."""
    size: int
    """Bytes of the body."""
    by_worker: bool = False
    """Whether a worker published the message."""

    @classmethod
    def of(cls, delivery: Delivery, names: Names) -> Self:
        """Return the dead letter in a delivery of the dead-letter queue."""
        message = delivery.message
        death = _last_death(message.headers) if delivery.exchange == names.dead_letters else {}
        # A worker names no death; the broker's dead letters always tell one.
        by_worker = delivery.exchange == names.dead_letters and not death
        given = message.headers if by_worker else _without_ours(message.headers)
        origin = _origin(given, death, names)
        at = death.get("time")
        return cls(
            id=_id_of(message, at),
            message=message,
            origin=origin,
            reason=str(given.get(REASON_HEADER) or death.get("reason") or "unknown"),
            error=str(given.get(ERROR_HEADER) or _told_by_the_broker(death)),
            dead_lettered_at=_moment(given.get(DEAD_LETTERED_AT_HEADER)) or _moment(at),
            call=_call_of(message.headers, origin, names),
            size=len(message.body),
            by_worker=given.get(ORIGIN_HEADER) == BY_WORKER,
        )

    def without_body(self) -> Self:
        """Return the same dead letter without its body."""
        return replace(self, message=replace(self.message, body=b""))

    def replayed(self, names: Names) -> tuple[Message, str, str]:
        """Return the message as a replay publishes it.

        It keeps its message id. It loses the broker's headers and ours, which describe its former hops, deaths and
        deadline. A message between workers goes to the sessions exchange, because its inbox may be gone, and only the
        exchange knows whether the call has an owner. A message that a worker made of a call event becomes a call event
        again.

        Raises:
            NotReplayable: only a worker could have published it, or its publisher is unknown.
        """
        message = replace(
            self.message,
            message_id=self.message.message_id or Message(b"").message_id,  # it is known by it when it comes back
            headers=_without_ours(self.message.headers),
            reply_to=None,
            expiration=None,
        )
        exchange, key, queue = self.origin.exchange, self.origin.routing_key, self.origin.queue
        if queue == names.calls:
            return message, exchange or names.calls, key
        kind = self.message.type
        if kind in _INTERNAL:
            raise NotReplayable(f"only workers send {kind}: publish the start of the call to {names.calls!r} instead")
        if kind in MADE_OF_EVENTS:
            if not self.by_worker:
                raise NotReplayable(
                    f"the sender of this {kind} is unknown: publish it to {names.calls!r} if you trust it"
                )
            return message, names.calls, key
        if queue == names.queries or (not exchange and key == names.queries):
            return message, names.cluster, ""
        if self.call is not None and _was_between_workers(self.origin, names):
            return message, names.sessions, self.call
        if not exchange or exchange in (names.dead_letters, names.events, names.workers, names.unowned, names.orphans):
            raise NotReplayable(f"its origin is unknown: publish it yourself, or drop it ({exchange!r})")
        return message, exchange, key


@dataclass(frozen=True, slots=True)
class Filter:
    """The criteria for selecting dead letters. A criterion that is None is ignored; all others must match."""

    reason: str | None = None
    type: str | None = None
    call: str | None = None
    since: datetime | None = None
    before: datetime | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Whether the filter selects a message. A message without a time fits neither ``since`` nor ``before``."""
        at = letter.dead_lettered_at
        return (
            self.reason in (None, letter.reason)
            and self.type in (None, letter.message.type)
            and (self.call is None or routing_key(call_id_of(self.call)) == letter.call)
            and (self.since is None or (at is not None and at >= self.since))
            and (self.before is None or (at is not None and at < self.before))
        )


def _was_between_workers(origin: Origin, names: Names) -> bool:
    """Return whether the message was on its way from one worker to another, or to the placer."""
    waiting = (names.unowned, names.orphans)
    inbox = names.worker_of_inbox(origin.queue) or (not origin.exchange and names.worker_of_inbox(origin.routing_key))
    return (
        bool(inbox and not origin.exchange)
        or origin.exchange in waiting
        or (origin.queue in waiting and not origin.exchange)
    )


def _last_death(headers: Headers) -> Mapping[str, Any]:
    """Return the newest entry of ``x-death``, which comes first.

    Up to RabbitMQ 3.13 the others may be a publisher's own, and so may the exchange and the key of this one.
    """
    deaths = headers.get("x-death")
    newest = deaths[0] if isinstance(deaths, list) and deaths else None
    return newest if isinstance(newest, dict) else {}


def _origin(headers: Headers, death: Mapping[str, Any], names: Names) -> Origin:
    """Return where the message was published.

    For a message that the broker dead-lettered, only the queue is certain.
    """
    if death:
        keys, queue = death.get("routing-keys"), str(death.get("queue", ""))
        key = keys[0] if isinstance(keys, list) and keys else ""
        return Origin(names.calls if queue == names.calls else "", str(key), queue)
    return Origin(*(str(headers.get(name, "")) for name in (EXCHANGE_HEADER, ROUTING_KEY_HEADER, QUEUE_HEADER)))


def _told_by_the_broker(death: Mapping[str, Any]) -> str:
    match death.get("reason"):
        case "delivery_limit":
            return f"returned too often by the consumers of {death.get('queue')}"
        case "expired":
            return f"no consumer took it from {death.get('queue')} in time"
        case "rejected":
            return f"a consumer of {death.get('queue')} rejected it"
        case _:
            return ""


def _call_of(headers: Headers, origin: Origin, names: Names) -> str | None:
    if call := headers.get(CALL_HEADER):
        return routing_key(CallId(str(call)))
    waiting = (names.unowned, names.orphans)
    addressed = origin.exchange in (names.sessions, names.requests, *waiting) or origin.queue in waiting
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
