"""The channels of a publishing connection.

RabbitMQ closes the channel of a publication that it refuses (no such exchange, no permission, too large). It does not
say what became of the other publications on that channel. A worker shares a few channels between all publications, and
gives up the link when it loses one. A client lends each publication a channel until it is confirmed, so that a refusal
affects no other publication (``lent_channels``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import aiormq
from aio_pika.abc import AbstractConnection

from consumer.broker.direct_reply import DirectReplies
from consumer.broker.pending import Pending
from consumer.broker.raw_channels import RawChannel, opened

CONFIRM_CHANNELS = 2

Purpose = Literal["message", "outbox", "question"]
"""What a channel is taken for.

``message`` is a publication with a confirm. ``outbox`` is one whose order must be kept. ``question`` asks the broker
something that changes nothing, such as how many consumers a queue has.
"""


@dataclass(frozen=True, slots=True)
class PublishingTerms:
    """The terms of all channels of a publishing connection."""

    pending: Pending
    direct_replies: DirectReplies
    user: str | None = None
    """The user of this connection, if messages are to name it; None otherwise."""


class PublishChannels(Protocol):
    """The channels to publish on. They are taken and given back, except the one without confirms, which is shared."""

    terms: PublishingTerms

    async def take(self, purpose: Purpose) -> aiormq.Channel:
        """Take a channel.

        Raises:
            BrokerUnavailable: there is no connection; nothing was sent.
        """
        ...

    def give_back(self, channel: aiormq.Channel, *, failed: bool) -> None:
        """Give a channel back. ``failed`` says that its use failed, or that the caller gave it up."""
        ...

    async def unconfirmed(self) -> aiormq.Channel:
        """Return the channel without confirms.

        Raises:
            BrokerUnavailable: there is no connection; nothing was sent.
        """
        ...


class SharedChannels:
    """A few channels that take turns. The loss of one is the loss of the link."""

    def __init__(self, terms: PublishingTerms, confirm: Sequence[RawChannel], others: Sequence[RawChannel]) -> None:
        self.terms = terms
        self._confirm = confirm
        self._outbox, self._unconfirmed, self._question = others
        self._turn = 0

    @classmethod
    async def open(cls, connection: AbstractConnection, terms: PublishingTerms, lost: Callable[[str], None]) -> Self:
        """Open the channels; ``lost`` is called with the reason when one of them is closed.

        Raises:
            BrokerUnavailable: the broker did not open one.
        """

        async def one(*, confirms: bool) -> RawChannel:
            pika = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
            raw = await opened(pika, terms.pending)
            raw.closing.add_done_callback(lambda _: lost("a publishing channel was closed"))
            return pika, raw

        confirm = [await one(confirms=True) for _ in range(CONFIRM_CHANNELS)]
        return cls(terms, confirm, [await one(confirms=confirms) for confirms in (True, False, False)])

    async def take(self, purpose: Purpose) -> aiormq.Channel:
        """Return the outbox's channel, the one for questions, or the one with confirms whose turn it is."""
        if purpose == "outbox":
            return self._outbox[1]
        if purpose == "question":
            return self._question[1]
        self._turn = (self._turn + 1) % len(self._confirm)
        return self._confirm[self._turn][1]

    def give_back(self, channel: aiormq.Channel, *, failed: bool) -> None:
        """Do nothing: the channel is shared."""

    async def unconfirmed(self) -> aiormq.Channel:
        """Return the channel without confirms."""
        return self._unconfirmed[1]
