"""The channels of a publishing connection.

RabbitMQ closes the channel of a publication that it refuses (no such exchange, no permission, too large). It does not
say what became of the other publications on that channel. A worker shares a few channels between all publications, and
gives up the link when it loses one. A client lends each publication a channel until it is confirmed, so that a refusal
affects no other publication (``lent_channels``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import aiormq
from aio_pika.abc import AbstractConnection

from consumer.broker.direct_reply import DirectReplies
from consumer.broker.pending import Pending
from consumer.broker.raw_channels import RawChannel, opened

CONFIRM_CHANNELS = 2


@dataclass(frozen=True, slots=True)
class PublishingTerms:
    """The terms of all channels of a publishing connection."""

    pending: Pending
    direct_replies: DirectReplies
    user: str | None = None
    """The user of this connection, if messages are to name it; None otherwise."""


class PublishChannels(Protocol):
    """The channels to publish on. Those with confirms are taken and given back; the one without is shared."""

    terms: PublishingTerms

    async def take(self, *, outbox: bool) -> aiormq.Channel:
        """Take a channel with confirms. The outbox has one of its own, because its order must be kept.

        Raises:
            BrokerUnavailable: there is no connection; nothing was sent.
        """
        ...

    def give_back(self, channel: aiormq.Channel, *, failed: bool) -> None:
        """Give a channel back. ``failed`` says that its publication failed, or that the caller gave it up."""
        ...

    async def unconfirmed(self) -> aiormq.Channel:
        """Return the channel without confirms.

        Raises:
            BrokerUnavailable: there is no connection; nothing was sent.
        """
        ...

    def look(self) -> aiormq.Channel:
        """Return the channel for questions to the broker, such as how many consumers a queue has."""
        ...


class SharedChannels:
    """A few channels that take turns. The loss of one is the loss of the link."""

    def __init__(self, terms: PublishingTerms, confirm: Sequence[RawChannel], others: Sequence[RawChannel]) -> None:
        self.terms = terms
        self._confirm = confirm
        self._outbox, self._unconfirmed, self._look = others
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

    async def take(self, *, outbox: bool) -> aiormq.Channel:
        """Return the channel whose turn it is, or the outbox's."""
        if outbox:
            return self._outbox[1]
        self._turn = (self._turn + 1) % len(self._confirm)
        return self._confirm[self._turn][1]

    def give_back(self, channel: aiormq.Channel, *, failed: bool) -> None:
        """Do nothing: the channel is shared."""

    async def unconfirmed(self) -> aiormq.Channel:
        """Return the channel without confirms."""
        return self._unconfirmed[1]

    def look(self) -> aiormq.Channel:
        """Return the channel for questions."""
        return self._look[1]
