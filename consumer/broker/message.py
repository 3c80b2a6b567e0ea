"""A message, independent of the AMQP library."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self

Headers = dict[str, Any]

JSON: Final = "application/json"

MAX_BODY: Final = 16 << 20
"""The most bytes of one message from RabbitMQ 4.0 on (128 MiB before).

The broker closes the channel for a larger message, and the link is lost. Sending it again would end the next link.
"""

CALL_HEADER: Final = "x-mcp-call"
"""The header with the call of a message that goes straight to a queue. Its routing key is the queue's name."""

_ORDERS: Final = frozenset({"CC", "BCC"})
"""Headers with further routing keys, which RabbitMQ also routes to (sender-selected distribution)."""

_BROKER_HEADERS: Final = _ORDERS | {"x-death", "x-delivery-count", "x-acquired-count", "x-opt-deaths"}
_BROKER_PREFIXES: Final = ("x-first-death-", "x-last-death-")


def own_headers(headers: Headers) -> Headers:
    """Return ``headers`` without the broker's own, and without those that change the routing.

    RabbitMQ 3.10 trusts the ``x-death`` that a client publishes, and silently drops a message that passes a second
    time. It applies ``CC`` with the rights of the publisher, which would be ours. It closes the channel if ``CC`` is no
    array. The ``CC`` of a received message may be none: if a header occurs twice, RabbitMQ reads the first one, and the
    library the last.
    """
    return {
        name: value
        for name, value in headers.items()
        if name not in _BROKER_HEADERS and not name.startswith(_BROKER_PREFIXES)
    }


@dataclass(frozen=True, slots=True)
class Message:
    """Body and properties (AMQP 0-9-1, section 4.2.6); ``expiration`` is the caller's timeout in milliseconds."""

    body: bytes
    type: str | None = None
    message_id: str = field(default_factory=lambda: secrets.token_hex(16))
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: int | None = None
    headers: Headers = field(default_factory=dict)
    content_type: str | None = JSON
    timestamp: datetime | None = field(default_factory=lambda: datetime.now(UTC))
    persistent: bool = True

    def with_headers(self, headers: Headers) -> Self:
        """Return the same message with more headers."""
        return replace(self, headers=self.headers | headers)

    def again(self) -> Self:
        """Return the same message for a second publication, without the broker's headers.

        It has no ``expiration`` either, because its time would begin anew, and a message that expires in a quorum queue
        is dead-lettered. The timeout travels in the body or in a header.
        """
        return replace(self, headers=own_headers(self.headers), expiration=None)


class Settled(Protocol):
    """A function that gives a delivery back to the broker. It does nothing if the channel is closed."""

    def __call__(self, *, requeue: bool | None) -> Awaitable[None]:
        """Acknowledge (``requeue`` is None), requeue (True) or reject (False)."""
        ...


class LocalRequester(Protocol):
    """A requester in the same process, which gets the answers without the broker."""

    async def hear(self, body: bytes, message_type: str) -> None:
        """Take a message that comes before the reply, or the reply."""
        ...

    def not_here(self) -> None:
        """Note that nothing was executed here. The caller sends the request over the broker."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A message that came from a queue; it is the broker's until it is settled."""

    message: Message
    queue: str
    exchange: str
    routing_key: str
    redelivered: bool
    received_at: float
    """The time of arrival on the monotonic clock. uvloop's own clock has whole milliseconds only."""
    settle: Settled | None
    """The function that settles the delivery; None on a queue that is consumed without acknowledgements."""
    named_call: str | None = None
    """The call that the body names, if the address names none; empty if the body names none either."""
    user: str | None = None
    """The AMQP property ``user_id``: the user that published the message, verified by RabbitMQ.

    Few publishers set it.
    """
    by_worker: bool = False
    """Whether a worker published it, as ``consumer.calls.messages.border`` has found out."""
    local_requester: LocalRequester | None = None
    """The receiver of the replies, if there is no reply address."""

    @property
    def expects_answers(self) -> bool:
        """Whether the request has somewhere to send a reply."""
        return self.local_requester is not None or bool(self.message.reply_to)

    @property
    def type(self) -> str | None:
        """The AMQP ``type``."""
        return self.message.type

    @property
    def call(self) -> str | None:
        """The call of the message, for logs."""
        if self.named_call is not None:
            return self.named_call or None
        if named := self.message.headers.get(CALL_HEADER):
            return str(named)
        return self.routing_key or None if self.exchange else None

    def about_call(self, call_id: str) -> Self:
        """Return the same delivery with its call set from the body, because its routing key is the platform's."""
        return replace(self, named_call=call_id)

    async def ack(self) -> None:
        """Acknowledge the message."""
        if self.settle is not None:
            await self.settle(requeue=None)

    async def requeue(self) -> None:
        """Give the message back to the broker, which delivers it again."""
        if self.settle is not None:
            await self.settle(requeue=True)

    async def reject(self) -> None:
        """Reject the message. The broker dead-letters it as its queue says."""
        if self.settle is not None:
            await self.settle(requeue=False)


Handler = Callable[[Delivery], object]
"""Takes a delivery over. It must not block, and starts a task for anything that takes time."""
