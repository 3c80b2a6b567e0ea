"""A message, apart from the library that carries it."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self

Headers = dict[str, Any]

JSON: Final = "application/json"

MAX_BODY: Final = 16 << 20
"""What RabbitMQ takes in one message from 4.0 on (128 MiB before), in bytes.

It answers a larger one by closing the channel, and the link is lost with it: sent again, it would be lost for ever.
"""

CALL_HEADER: Final = "x-mcp-call"
"""The call of a message that goes straight to a queue, where the routing key is the queue's name."""

_ORDERS: Final = frozenset({"CC", "BCC"})
"""Further routing keys: what RabbitMQ does with a message beside what its publisher says (sender-selected)."""

_BROKER_HEADERS: Final = _ORDERS | {"x-death", "x-delivery-count", "x-acquired-count", "x-opt-deaths"}
_BROKER_PREFIXES: Final = ("x-first-death-", "x-last-death-")


def own_headers(headers: Headers) -> Headers:
    """``headers`` without the broker's, and without what tells the broker where else to route.

    RabbitMQ 3.10 believes the ``x-death`` that a client publishes, and drops a message on its second lap silently. It
    obeys ``CC`` with the rights of whoever publishes, which would be ours; and it closes the channel for one that is no
    array, which another's can be when we read it: of two fields of a name RabbitMQ reads the first, the library the
    last.
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
        """The same message as it may be published a second time: without the broker's headers.

        Its ``expiration`` is left out as well: it would count from anew, and a message that expires in a quorum queue
        is dead-lettered. The timeout travels in the body or in a header.
        """
        return replace(self, headers=own_headers(self.headers), expiration=None)


class Settled(Protocol):
    """How a delivery is given back to the broker; both are idle when its channel has gone."""

    def __call__(self, *, requeue: bool | None) -> Awaitable[None]:
        """Acknowledge (``requeue`` is None), requeue (True) or reject (False)."""
        ...


class LocalRequester(Protocol):
    """A requester in this very process, which hears the answers without the broker."""

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
    """The monotonic clock at arrival; uvloop's own has whole milliseconds only."""
    settle: Settled | None
    """None on a queue that is consumed without acknowledgements."""
    named_call: str | None = None
    """The call that the body names, where no address does; empty when it names none."""
    user: str | None = None
    """The AMQP property ``user_id``: the user that published the message. RabbitMQ has verified it; few say it."""
    by_worker: bool = False
    """Whether a worker published it, as ``consumer.calls.messages.border`` has found."""
    local_requester: LocalRequester | None = None
    """The receiver of the replies, if that is not a reply address."""

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
        """The call that the message is about, for logs."""
        if self.named_call is not None:
            return self.named_call or None
        if named := self.message.headers.get(CALL_HEADER):
            return str(named)
        return self.routing_key or None if self.exchange else None

    def about_call(self, call_id: str) -> Self:
        """The same delivery, of a message whose body names the call; its routing key is its platform's."""
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
"""Takes a delivery over: it must not block, and hands what takes time to a task of its own."""
