"""The channels of a publishing connection.

RabbitMQ closes the channel of a publication that it refuses (no such exchange, no permission, too large). It does not
say what became of the other publications on that channel. A worker shares a few channels between all publications, and
gives up the link when it loses one. A client lends each publication a channel until it is confirmed, so that a refusal
affects no other publication.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiormq
from aio_pika.abc import AbstractChannel
from aiormq.abc import ChannelFrame

from consumer.broker.direct_reply import DirectReplies
from consumer.broker.errors import BrokerUnavailable
from consumer.broker.pending import Pending
from consumer.concurrency.task_set import Tasks

MOST_LENT = 16
"""How many publications can wait for their confirmation at once; others wait for a free channel."""

TURN_TIMEOUT = 30.0
"""How long (s) a publication waits for a free channel; a broker in a memory or disk alarm confirms nothing."""

Opened = tuple[AbstractChannel, aiormq.Channel]
"""A channel as both libraries know it. The first must be referenced, because it closes when it is collected."""


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
            BrokerUnavailable: there is none; nothing was sent.
        """
        ...

    def give_back(self, channel: aiormq.Channel, *, failed: bool) -> None:
        """Give a channel back. ``failed`` says that its publication failed, or that the caller gave it up."""
        ...

    async def unconfirmed(self) -> aiormq.Channel:
        """Return the channel without confirms.

        Raises:
            BrokerUnavailable: there is none; nothing was sent.
        """
        ...

    def look(self) -> aiormq.Channel:
        """Return the channel for questions to the broker, such as how many consumers a queue has."""
        ...


class SharedChannels:
    """A few channels that take turns. The loss of one is the loss of the link."""

    def __init__(
        self, terms: PublishingTerms, confirm: Sequence[Opened], outbox: Opened, unconfirmed: Opened, look: Opened
    ) -> None:
        self.terms = terms
        self._confirm, self._outbox, self._unconfirmed, self._look = confirm, outbox, unconfirmed, look
        self._turn = 0

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


class SureWrites:
    """The write queue of a connection with a ``put_nowait`` that drops no frame.

    When the queue is full, aiormq drops its answer to a ``channel.close``. RabbitMQ would then close the connection
    when a new channel gets that number.
    """

    def __init__(self, queue: "asyncio.Queue[ChannelFrame]", tasks: Tasks) -> None:
        self._queue = queue
        self._tasks = tasks

    async def put(self, frame: ChannelFrame) -> None:
        """Put a frame when there is room."""
        await self._queue.put(frame)

    def put_nowait(self, frame: ChannelFrame) -> None:
        """Put a frame now, or as soon as there is room."""
        if self._queue.full():
            self._tasks.start(self._queue.put(frame), "publish-frame")
        else:
            self._queue.put_nowait(frame)


class LentChannels:
    """Channels of a client, each with confirms lent to one publication at a time.

    The one without confirms is shared, and replaced when it is lost. Channels are opened when they are needed, and
    kept. A publication that finds an idle one costs no extra round trip.

    ``open_one`` opens a channel, with confirms or without. ``close`` closes one in the background. At most ``most`` are
    lent at once, and at most ``MOST_LENT``.
    """

    def __init__(
        self,
        terms: PublishingTerms,
        open_one: Callable[[bool], Awaitable[Opened]],
        close: Callable[[AbstractChannel], None],
        *,
        most: int,
    ) -> None:
        self.terms = terms
        self._open_one = open_one
        self._close = close
        self._idle: list[Opened] = []
        self._lent: dict[aiormq.Channel, AbstractChannel] = {}
        self._room = asyncio.Semaphore(max(1, min(MOST_LENT, most)))
        self._unconfirmed: Opened | None = None
        self._replacing = asyncio.Lock()

    async def take(self, *, outbox: bool) -> aiormq.Channel:
        """Lend a channel that nobody else uses.

        Raises:
            BrokerUnavailable: none was free in time, or none could be opened; nothing was sent.
        """
        assert not outbox, "these channels keep no order"
        try:
            async with self.terms.pending.bounded(TURN_TIMEOUT):
                await self._room.acquire()
        except TimeoutError:
            lost = "the connection to the broker was lost"
            silent = "the broker confirms nothing"
            raise BrokerUnavailable(f"{lost if self.terms.pending.over else silent}; nothing was sent") from None
        try:
            pika, raw = await self._one()
        except BaseException:
            self._room.release()
            raise
        self._lent[raw] = pika
        return raw

    async def _one(self) -> Opened:
        while self._idle:
            if not (one := self._idle.pop())[1].is_closed:
                return one
        return await self._open_one(True)

    def give_back(self, channel: aiormq.Channel, *, failed: bool) -> None:
        """Keep the channel for the next publication. A failed one is closed: a late answer to it could be mistaken."""
        pika = self._lent.pop(channel)
        if not failed:
            self._idle.append((pika, channel))
        elif not channel.is_closed:
            self._close(pika)
        self._room.release()

    async def unconfirmed(self) -> aiormq.Channel:
        """Return the channel without confirms. It is opened by the first call, and anew after the broker closed it."""
        async with self._replacing:
            if self._unconfirmed is None or self._unconfirmed[1].is_closed:
                self._unconfirmed = await self._open_one(False)
            return self._unconfirmed[1]

    def look(self) -> aiormq.Channel:
        """Refuse: only workers ask questions there."""
        raise NotImplementedError
