"""The dead-letter queue for operators: look at its messages, replay them, drop them.

A look consumes and gives everything back when its channel closes, in the order that it had. Each look counts as a
delivery, so the queue's limit is out of reach (``topology``). A look ends only when all messages are back, so the next
look sees all of them. Only the named messages are acknowledged, and a replay waits for the confirm first. So after an
interruption a message may be in both places, but never in none.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

from aiormq.exceptions import ChannelNotFoundEntity

from consumer.broker.channel import MOST_HELD, Channel
from consumer.broker.dead_letter import DeadLetter, Filter, NotReplayable
from consumer.broker.declare import exists
from consumer.broker.errors import BrokerUnavailable, PublishFailed, Unsendable
from consumer.broker.link import Link
from consumer.broker.message import Delivery
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Exchange, Names

BODIES: Final = 64 << 20
"""The most bytes of message bodies that a replay holds in memory at once."""

SILENCE: Final = 15.0
"""How long (s) the broker may deliver nothing although messages are left. Then another consumer is taking them."""

POLL: Final = 0.1
"""The interval (s) for counting the dead letters while replayed messages may come back."""

WHOLE: Final = 10.0
"""How long (s) a look waits at most until all messages are back in the queue."""


class NoSuchDeadLetter(LookupError):
    """No dead letter has this id, or several have it."""


@dataclass(frozen=True, slots=True)
class Look:
    """How many messages a look has seen, and how many are left."""

    seen: int
    left: int
    """The number of messages behind those that were seen. Replay or drop some to see them."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result for one replayed message. If ``problem`` is set, the message is still a dead letter."""

    letter: DeadLetter
    exchange: str
    routing_key: str
    problem: str = ""
    message_id: str = ""
    again: DeadLetter | None = None
    """The message as it became a dead letter again, because no worker could handle it this time either."""


Visit = Callable[[Delivery, DeadLetter], bool]
"""A function that is called with each message and returns whether to go on."""


class DeadLetterQueue:
    """The messages in ``<prefix>.dead``; not safe for several uses at once."""

    def __init__(self, link: Link, names: Names) -> None:
        self._link = link
        self._names = names
        self._queue = names.dead_letters
        self._exchanges: dict[str, bool] = {}
        """Whether an exchange of that name exists, as a replay has found out."""

    async def look(self, visit: Callable[[DeadLetter], bool]) -> Look:
        """Call ``visit`` with each message, the oldest first, until it returns False. No message is removed."""
        async with self._lap(lambda _, letter: visit(letter)) as lap:
            return Look(lap.seen, lap.there - lap.seen)

    async def named(self, words: Collection[str]) -> list[DeadLetter]:
        """Return the messages, without bodies, that these words name: an id, the beginning of one, or a message id.

        Raises:
            NoSuchDeadLetter: a word names nothing, or several messages that differ.
        """
        found: dict[str, list[DeadLetter]] = {word: [] for word in words}

        def visit(letter: DeadLetter) -> bool:
            for word, named in found.items():
                if word and (letter.id.startswith(word) or letter.message.message_id == word):
                    named.append(letter.without_body())
            return True

        await self.look(visit)
        for word, named in found.items():
            if not named:
                raise NoSuchDeadLetter(f"there is no dead letter {word!r}")
            if len({one.id for one in named}) > 1:
                ids = ", ".join(sorted({one.id for one in named}))
                raise NoSuchDeadLetter(f"{word!r} is ambiguous: it matches {ids}")
        return list({id(one): one for named in found.values() for one in named}.values())

    async def fitting(self, wanted: Filter) -> list[DeadLetter]:
        """Return the messages that the filter selects, without their bodies."""
        found: list[DeadLetter] = []

        def visit(letter: DeadLetter) -> bool:
            if wanted.fits(letter):
                found.append(letter.without_body())
            return True

        await self.look(visit)
        return found

    async def drop(self, ids: Collection[str], done: Callable[[DeadLetter], None]) -> None:
        """Remove the messages with these ids for good. ``done`` is called for each."""
        found: list[tuple[Delivery, DeadLetter]] = []

        def visit(delivery: Delivery, letter: DeadLetter) -> bool:
            if letter.id in ids:
                bare = letter.without_body()
                found.append((replace(delivery, message=bare.message), bare))
            return True

        async with self._lap(visit) as lap:
            for delivery, letter in found:
                await lap.ack(delivery)
                done(letter)
        await self._drop_what_came_back({letter.id for _, letter in found})

    async def _drop_what_came_back(self, ids: Collection[str]) -> None:
        """Make sure that the messages with these ids are gone, also those that RabbitMQ has requeued.

        RabbitMQ keeps acknowledgements for a quorum queue back in their channel while more than 32 are under way, and
        forgets them when the channel is closed.
        """
        back: list[Delivery] = []

        def visit(delivery: Delivery, letter: DeadLetter) -> bool:
            if letter.id in ids:
                back.append(replace(delivery, message=letter.without_body().message))
            return True

        while ids:
            back.clear()
            async with self._lap(visit) as lap:
                for delivery in back:
                    await lap.ack(delivery)
            if not back:
                return

    async def replay(self, ids: Collection[str], publisher: Publisher, done: Callable[[Replayed], None]) -> None:
        """Publish these messages where they came from, the oldest first. ``done`` is called for each.

        A message that no queue takes stays a dead letter, and the replay goes on.

        Raises:
            BrokerError: the link was lost. Messages without a call of ``done`` are still dead letters.
        """
        todo, sent = set(ids), set[str]()
        self._exchanges.clear()

        def tell(replayed: Replayed) -> None:
            if not replayed.problem:
                sent.add(replayed.letter.id)
            done(replayed)

        while todo:
            gone = await self._replay_some(todo, publisher, tell)
            if not gone:
                break
            todo -= gone
        await self._drop_what_came_back(sent)

    async def everything(self) -> set[str]:
        """Return the ids of all dead letters."""
        ids: set[str] = set()

        def visit(letter: DeadLetter) -> bool:
            ids.add(letter.id)
            return True

        await self.look(visit)
        return ids

    async def dead_letter_again(
        self, done: Collection[Replayed], before: Collection[str], timeout: float
    ) -> list[Replayed]:
        """Return ``done``, with those marked that became dead letters again within ``timeout`` seconds.

        A message is known by its message id, which it keeps; ``before`` is :meth:`everything` as it was before the
        replay. Returns early when nothing is left that could come back.
        """
        away: dict[str, list[int]] = {}
        told = list(done)
        for number, one in enumerate(told):
            if not one.problem:
                away.setdefault(one.message_id, []).append(number)
        seen = set(before)

        def visit(letter: DeadLetter) -> bool:
            if letter.id not in seen:
                seen.add(letter.id)
                if waiting := away.get(letter.message.message_id or ""):
                    number = waiting.pop(0)
                    told[number] = replace(told[number], again=letter.without_body())
            return True

        deadline, there = time.monotonic() + timeout, -1
        while any(away.values()):
            async with self._link.scratch() as channel:
                now_there, _ = await self._counts(channel)
            if now_there != there:
                there = now_there
                await self.look(visit)
            elif time.monotonic() > deadline:
                break
            else:
                await asyncio.sleep(POLL)
        return told

    async def _replay_some(
        self, ids: Collection[str], publisher: Publisher, done: Callable[[Replayed], None]
    ) -> set[str]:
        """Replay as many of these messages as fit in memory at once. Return the ids of those that did."""
        batch: list[tuple[Delivery, DeadLetter]] = []
        size = 0

        def visit(delivery: Delivery, letter: DeadLetter) -> bool:
            nonlocal size
            if letter.id in ids:
                batch.append((delivery, letter))
                size += letter.size
            return size < BODIES

        async with self._lap(visit) as lap:
            for delivery, letter in batch:
                replayed = await self._publish(letter, publisher)
                if not replayed.problem:
                    await lap.ack(delivery)
                done(replayed)
        return {letter.id for _, letter in batch}

    async def _publish(self, letter: DeadLetter, publisher: Publisher) -> Replayed:
        kept = letter.without_body()
        try:
            message, exchange, key = letter.replayed(self._names)
        except NotReplayable as error:
            return Replayed(kept, "", "", str(error))
        try:
            # Asked before, because publishing to an exchange that is not there costs the channel, and so the link.
            if exchange and exchange not in self._exchanges:
                self._exchanges[exchange] = await exists(self._link, Exchange(exchange, "topic", ""))
            if not self._exchanges.get(exchange, True):
                return Replayed(kept, exchange, key, f"there is no exchange {exchange!r}")
            await publisher.publish(message, exchange, key)
        except (PublishFailed, Unsendable) as error:
            return Replayed(kept, exchange, key, str(error))
        return Replayed(kept, exchange, key, message_id=message.message_id)

    @contextlib.asynccontextmanager
    async def _lap(self, visit: Visit) -> AsyncIterator["_Lap"]:
        """Take one look from the front of the queue. On leaving, all messages that were not acknowledged go back."""
        async with self._link.scratch() as channel:
            there, consumers = await self._counts(channel)
            lap = _Lap(visit, self._names, there)
            # Also of an empty queue: only to consume shows whether this user may look.
            await channel.prefetch(min(max(there, 1), MOST_HELD))
            await channel.consume(self._queue, lap.take)
            await lap.over(self._link)
            yield lap
        await self._whole_again(there - lap.acked, consumers)

    async def _counts(self, channel: Channel) -> tuple[int, int]:
        try:
            return await channel.counts(self._queue)
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, ChannelNotFoundEntity):
                raise NoSuchDeadLetter(
                    f"there is no queue {self._queue!r}: a worker declares it, or 'mcp-sessions topology apply'; "
                    "check the prefix"
                ) from error
            raise

    async def _whole_again(self, count: int, consumers: int) -> None:
        """Wait until the queue has noticed that our consumer is gone, and has its messages back."""
        with contextlib.suppress(TimeoutError):  # then somebody else is taking messages
            async with asyncio.timeout(WHOLE), self._link.scratch() as channel:
                while True:
                    ready, still_consuming = await self._counts(channel)
                    if ready >= count and still_consuming <= consumers:
                        return
                    await asyncio.sleep(0.01)  # the broker tells nobody


class _Lap:
    """The messages that one look has seen so far."""

    def __init__(self, visit: Visit, names: Names, there: int) -> None:
        self._visit = visit
        self._names = names
        self.there = there
        self._expected = min(there, MOST_HELD)
        self._news = asyncio.Event()
        self._failed: Exception | None = None
        self._enough = False
        self.seen = 0
        self.acked = 0

    def take(self, delivery: Delivery) -> None:
        """Pass one message to ``visit``. A message that ``visit`` does not keep stays only on the broker."""
        if self._enough or self.seen == self._expected:
            return
        self.seen += 1
        try:
            self._enough = not self._visit(delivery, DeadLetter.of(delivery, self._names))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._failed, self._enough = error, True
        self._news.set()

    async def over(self, link: Link) -> None:
        """Wait until all messages were shown, ``visit`` has returned False, or the broker falls silent.

        Raises:
            BrokerUnavailable: the link was lost.
        """
        link.lost.add_done_callback(lambda _: self._news.set())
        with contextlib.suppress(TimeoutError):
            while not self._enough and self.seen < self._expected:
                self._news.clear()
                async with asyncio.timeout(SILENCE):
                    await self._news.wait()
                if link.lost.done():
                    raise BrokerUnavailable(f"the connection was lost: {link.lost.result()}")
        if self._failed is not None:
            raise self._failed

    async def ack(self, delivery: Delivery) -> None:
        """Remove a message from the dead-letter queue."""
        await delivery.ack()
        self.acked += 1
