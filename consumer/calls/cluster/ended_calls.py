"""Remembers which calls have ended, on every worker: the next placer must not open them again.

A start or a recipe may arrive after the end: from a dead worker's inbox, or from a former placer. For a short time the
tombstone bars every start, even one that was sent after the end. A start that was sent before the end is barred much
longer, because a dead letter may take minutes to arrive (see ``consumer.broker.topology``).
"""

import asyncio
import math
import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from pydantic import ValidationError

from consumer.broker.errors import BrokerError
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names
from consumer.concurrency.expiring_dict import ExpiringDict
from consumer.concurrency.task_set import Tasks
from schemas.ids import CallId, WorkerId
from schemas.internal import EndedCalls

log = structlog.get_logger(__name__)

BATCH = 1000
"""The most calls that one message names."""

GATHER = 0.05
"""How long (s) ends are collected into one message, which goes to every worker."""

REMEMBER = 600.0
"""How long (s) an end is remembered: longer than a restarting broker may delay a dead letter."""


CLOCKS = 5.0
"""By how much (s) the clocks of two workers may differ. An end that seems to be older than a request may be newer."""


class OpenedBy(NamedTuple):
    """The message that the sessions of a call go back to."""

    sent: datetime | None
    """When it was sent; None if it is not known."""
    commanded: bool = False
    """Whether it was an explicit request, which opens a call that has ended. No tombstone bars it."""


class Change(NamedTuple):
    """The end of a call, or its opening again by an explicit request (``lifted``)."""

    at: float
    lifted: bool


class Endings:
    """The last change of each call: its end, with a tombstone for ``tombstone`` seconds, or its opening again.

    A worker reports each change to all workers. It sends all changes that it knows to a worker with a new link, and
    over a new link of its own to all. The latest counts, in whatever order they arrive. The clocks of all workers have
    to agree within ``CLOCKS`` seconds, as they do with NTP.
    """

    def __init__(self, worker_id: WorkerId, names: Names, publisher: Publisher, tombstone: float) -> None:
        self._worker_id = worker_id
        self._names = names
        self._publisher = publisher
        self._tombstone = tombstone
        self._remember = max(REMEMBER, tombstone)
        self._changes: ExpiringDict[Change] = ExpiringDict(self._remember)
        self._news: dict[CallId, Change] = {}
        self._tasks = Tasks()

    def __contains__(self, call_id: CallId) -> bool:
        """Whether the call has a tombstone."""
        return self.bar(call_id, sent=None)

    def ended_at(self, call_id: str) -> float | None:
        """Return when the call has ended; None if it has not, or was opened again, or if it is not known any more."""
        known = self._changes.get(call_id)
        return None if known is None or known.lifted else known.at

    def bar(self, call_id: CallId, sent: datetime | None) -> bool:
        """Return whether a message sent at ``sent`` must not open the call: it has a tombstone, or ended later."""
        ended_at = self.ended_at(call_id)
        if ended_at is None:
            return False
        return time.time() < ended_at + self._tombstone or self.came_behind(call_id, sent)

    def came_behind(self, call_id: CallId, sent: datetime | None) -> bool:
        """Return whether the call has ended after the message was sent at ``sent``."""
        ended_at = self.ended_at(call_id)
        return ended_at is not None and sent is not None and sent.timestamp() <= ended_at

    def bars_start(self, call_id: CallId, sent: datetime | None) -> bool:
        """Return whether a start that was sent at ``sent`` opens nothing: it is barred now, or was when it was sent."""
        ended_at = self.ended_at(call_id)
        in_time = ended_at is not None and sent is not None and sent.timestamp() <= ended_at + self._tombstone
        return in_time or self.bar(call_id, sent)

    def ends(self, call_id: CallId, opened: OpenedBy) -> bool:
        """Return whether sessions that go back to ``opened`` must end, because their call has ended."""
        if opened.commanded:
            assert opened.sent is not None, "whoever opens it for a request knows when"
            return self.came_behind(call_id, opened.sent - timedelta(seconds=CLOCKS))
        return self.bars_start(call_id, opened.sent)

    def note(self, call_id: CallId) -> None:
        """Remember that a call has ended, and tell all workers."""
        self._change(call_id, lifted=False)

    def lift(self, call_id: CallId) -> None:
        """Forget that a call has ended, because an explicit request opens it again."""
        if self.ended_at(call_id) is not None:
            self._change(call_id, lifted=True)

    def _change(self, call_id: CallId, *, lifted: bool) -> None:
        change = Change(self._now(call_id), lifted)
        self._changes.set(call_id, change)
        self._tell_soon(call_id, change)

    def _now(self, call_id: CallId) -> float:
        """Return the time (s since the epoch), later than the call's last change, whose clock may be ahead of ours."""
        known = self._changes.get(call_id)
        return time.time() if known is None else max(time.time(), math.nextafter(known.at, math.inf))

    def hear(self, delivery: Delivery) -> None:
        """Take ended calls from another worker. A repeated report does not extend the ten minutes."""
        try:
            message = EndedCalls.model_validate_json(delivery.message.body)
        except ValidationError as error:  # of another version
            log.warning("endings.unreadable", error=str(error))
            return
        if message.worker_id == self._worker_id:
            return
        earliest = time.time() - self._remember
        lifted = set(message.lifted)
        told = {call_id: Change(at, call_id in lifted) for call_id, at in message.ended.items()}
        # An older worker does not say when it has opened a call again.
        told |= {call_id: Change(self._now(call_id), lifted=True) for call_id in lifted - told.keys()}
        for call_id, change in told.items():
            known = self._changes.get(call_id)
            if change.at > max(earliest, 0.0 if known is None else known.at):
                self._changes.set(call_id, change)

    def tell_again(self) -> None:
        """Send all known changes again, because a worker that started while this one was away may know none of them."""
        for call_id, change in self._changes.items():
            self._tell_soon(CallId(call_id), change)

    def tell_newcomer(self, queue: str) -> None:
        """Send all known changes to a worker that has a new link, to its ``queue``."""
        everything = {CallId(call_id): change for call_id, change in self._changes.items()}
        self._tasks.start(self._tell(everything, "", queue), "endings-newcomer")

    def _tell_soon(self, call_id: CallId, change: Change) -> None:
        if not self._news:
            self._tasks.start(self._tell_news(), "endings")
        self._news[call_id] = change

    async def _tell_news(self) -> None:
        await asyncio.sleep(GATHER)
        news, self._news = self._news, {}
        await self._tell(news, self._names.workers, "")

    async def _tell(self, told: dict[CallId, Change], exchange: str, key: str) -> None:
        calls = list(told.items())
        for start in range(0, len(calls), BATCH):
            batch = calls[start : start + BATCH]
            message = EndedCalls(
                worker_id=self._worker_id,
                ended={call_id: change.at for call_id, change in batch},
                lifted=[call_id for call_id, change in batch if change.lifted],
            )
            with suppress(BrokerError):  # all ends are reported when the link is back
                await self._publisher.publish(
                    Message(body=message.model_dump_json().encode(), type=EndedCalls.type, persistent=False),
                    exchange,
                    key,
                    confirm=False,
                )

    async def stop(self) -> None:
        """Stop sending ends."""
        await self._tasks.cancel()
