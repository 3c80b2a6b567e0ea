"""The channels of a publishing connection.

RabbitMQ closes the channel of a publication that it refuses (no such exchange, no permission, too large), and says
nothing of what else is under way on it. A worker publishes on a few channels that it needs all: the loss of one is the
loss of the link. Who publishes for others, as a client does, has a channel for each publication that is being
confirmed: a refusal costs nothing else.
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
"""How many publications are confirmed at once on channels of their own; others wait for their turn."""

TURN_TIMEOUT = 30.0
"""How long (s) a publication waits for its turn; a broker in a memory or disk alarm confirms nothing."""

Opened = tuple[AbstractChannel, aiormq.Channel]
"""A channel as both libraries know it. The first is held, or it is collected and closes under us."""


@dataclass(frozen=True, slots=True)
class PublishingTerms:
    """What holds for all channels of a publishing connection."""

    pending: Pending
    direct_replies: DirectReplies
    user: str | None = None
    """The broker's user of this connection, when what is published is to say so."""


class PublishChannels(Protocol):
    """Where to publish: with confirms on a channel that is taken and given back, without on one for all."""

    terms: PublishingTerms

    async def take(self, *, outbox: bool) -> aiormq.Channel:
        """Take a channel with confirms; the outbox has one of its own, whose order must be kept.

        Raises:
            BrokerUnavailable: there is none; nothing was sent.
        """
        ...

    def give_back(self, channel: aiormq.Channel, *, failed: bool) -> None:
        """Give a channel back whose publication was confirmed, or has ``failed`` or was given up."""
        ...

    async def unconfirmed(self) -> aiormq.Channel:
        """Return the channel without confirms.

        Raises:
            BrokerUnavailable: there is none; nothing was sent.
        """
        ...

    def look(self) -> aiormq.Channel:
        """Return the channel for questions that are asked where messages are published."""
        ...


class SharedChannels:
    """A few channels that take turns; none of them may be lost."""

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
        """Do nothing: others publish on it meanwhile."""

    async def unconfirmed(self) -> aiormq.Channel:
        """Return the channel without confirms."""
        return self._unconfirmed[1]

    def look(self) -> aiormq.Channel:
        """Return the channel for questions."""
        return self._look[1]


class SureWrites:
    """What a channel of aiormq uses of its connection's write queue; what is put at once is never left out.

    aiormq leaves its answer to a ``channel.close`` out when the queue is full. The broker would close the connection
    for the next channel of that number.
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
    """Channels that may be lost: each with confirms is lent to one publication, and the one without is replaced.

    ``open_one`` opens a channel, with confirms or without. ``close`` closes one in the background.
    """

    def __init__(
        self,
        terms: PublishingTerms,
        open_one: Callable[[bool], Awaitable[Opened]],
        close: Callable[[AbstractChannel], None],
    ) -> None:
        self.terms = terms
        self._open_one = open_one
        self._close = close
        self._idle: list[Opened] = []
        self._lent: dict[aiormq.Channel, AbstractChannel] = {}
        self._room = asyncio.Semaphore(MOST_LENT)
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
        """Keep it for the next publication, unless what still comes about this one would be taken for that."""
        pika = self._lent.pop(channel)
        if not failed:
            self._idle.append((pika, channel))
        elif not channel.is_closed:
            self._close(pika)
        self._room.release()

    async def unconfirmed(self) -> aiormq.Channel:
        """Return the channel without confirms; a new one with the first call, and when the broker has closed it."""
        async with self._replacing:
            if self._unconfirmed is None or self._unconfirmed[1].is_closed:
                self._unconfirmed = await self._open_one(False)
            return self._unconfirmed[1]

    def look(self) -> aiormq.Channel:
        """Refuse: only workers ask there."""
        raise NotImplementedError
