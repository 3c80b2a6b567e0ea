"""Channels that are lent to one publication each, so that a refusal affects no other publication."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, cast

import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import ChannelFrame
from aiormq.exceptions import ChannelClosed

from consumer.broker.errors import BrokerUnavailable
from consumer.broker.publish_channels import PublishingTerms, Purpose
from consumer.broker.raw_channels import RawChannel, closed, opened
from consumer.concurrency.task_set import Tasks
from consumer.observability.reasons import reason_of

MOST_CHANNELS = 100
"""How many channel numbers one publishing connection uses in turn. Some hosting plans allow no more."""

MOST_LENT = 16
"""How many publications can wait for their confirmation at once; others wait for a free channel."""

TURN_TIMEOUT = 30.0
"""How long (s) a publication waits for a free channel; a broker in a memory or disk alarm confirms nothing."""


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


class ChannelNumbers:
    """The channel numbers of a connection. Each is used again only after its former channel has been closed.

    The library would use a number again before the broker knows that its former channel is closed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._turns = itertools.cycle(range(1, most + 1))
        self._taken: dict[int, aiormq.Channel | None] = {}
        """The channels by their numbers; None while one is being opened."""

    def take(self) -> int:
        """Take a number that is free.

        Raises:
            BrokerUnavailable: all are in use.
        """
        for number in itertools.islice(self._turns, self._most):
            if number not in self._taken or ((old := self._taken[number]) is not None and old.is_closed):
                self._taken[number] = None
                return number
        # A broker that stands still, or in an alarm, closes none of the channels that were given up.
        raise BrokerUnavailable("the broker closes no channel of those that are in use; nothing was sent")

    def note(self, number: int, channel: aiormq.Channel | None) -> None:
        """Note the channel that was opened with a number; None if it was not opened, and the number is free again."""
        if channel is None:
            del self._taken[number]
        else:
            self._taken[number] = channel


class LentChannels:
    """Channels of a client, each with confirms lent to one publication at a time.

    The one without confirms is shared, and replaced when it is lost. Channels are opened when they are needed, and
    kept. A publication that finds an idle one costs no extra round trip. At most half of the connection's channel
    numbers are lent at once, and at most ``MOST_LENT``.

    ``refused`` is called with the reason when the broker closes the channel without confirms. ``tasks`` close channels
    in the background.
    """

    def __init__(
        self,
        terms: PublishingTerms,
        connection: AbstractConnection,
        tasks: Tasks,
        refused: Callable[[str], None],
    ) -> None:
        assert connection.transport is not None, "it is connected"
        agreed = connection.transport.connection.connection_tune.channel_max or MOST_CHANNELS
        most = min(agreed, MOST_CHANNELS)
        self.terms = terms
        self._connection = connection
        self._tasks = tasks
        self._refused = refused
        self._numbers = ChannelNumbers(most)
        self._idle: list[RawChannel] = []
        self._lent: dict[aiormq.Channel, AbstractChannel] = {}
        self._room = asyncio.Semaphore(max(1, min(MOST_LENT, most // 2)))
        self._unconfirmed: RawChannel | None = None
        self._replacing = asyncio.Lock()

    async def take(self, purpose: Purpose) -> aiormq.Channel:
        """Lend a channel that nobody else uses; any of them can carry a question, too.

        Raises:
            BrokerUnavailable: none was free in time, or none could be opened; nothing was sent.
        """
        assert purpose != "outbox", "these channels keep no order"
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

    async def _one(self) -> RawChannel:
        while self._idle:
            if not (one := self._idle.pop())[1].is_closed:
                return one
        return await self._open(confirms=True)

    async def _open(self, *, confirms: bool) -> RawChannel:
        number = self._numbers.take()
        raw = None
        try:
            pika = self._connection.channel(number, publisher_confirms=confirms, on_return_raises=confirms)
            raw = await opened(pika, self.terms.pending)
        finally:
            self._numbers.note(number, raw)
        if confirms:
            raw.write_queue = cast("asyncio.Queue[ChannelFrame]", SureWrites(raw.write_queue, self._tasks))
        else:
            raw.closing.add_done_callback(self._unconfirmed_closed)
        return pika, raw

    def _unconfirmed_closed(self, closing: "asyncio.Future[Any]") -> None:
        error = None if closing.cancelled() else closing.exception()
        if isinstance(error, ChannelClosed) and not self.terms.pending.over:  # else it has ended with its connection
            self._refused(reason_of(error))

    def give_back(self, channel: aiormq.Channel, *, failed: bool) -> None:
        """Keep the channel for the next publication. A failed one is closed: a late answer to it could be mistaken."""
        pika = self._lent.pop(channel)
        if not failed:
            self._idle.append((pika, channel))
        elif not channel.is_closed:
            self._tasks.start(closed(pika), "publish-close")
        self._room.release()

    async def unconfirmed(self) -> aiormq.Channel:
        """Return the channel without confirms. It is opened by the first call, and anew after the broker closed it."""
        async with self._replacing:
            if self._unconfirmed is None or self._unconfirmed[1].is_closed:
                self._unconfirmed = await self._open(confirms=False)
            return self._unconfirmed[1]
