"""Shares changes among all workers: of each key every worker knows the latest, in whatever order reports arrive."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from consumer.broker.errors import BrokerError
from consumer.broker.message import Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names
from consumer.concurrency.expiring_dict import ExpiringDict
from consumer.concurrency.task_set import Tasks

BATCH = 1000
"""The most changes that one message names."""

GATHER = 0.05
"""How long (s) changes are collected into one message, which goes to every worker."""


class Change(NamedTuple):
    """When something ended (s since the epoch), or was opened again by an explicit request (``lifted``)."""

    at: float
    lifted: bool


class SharedChanges:
    """The latest change of each key, remembered for ``keep`` seconds.

    A worker reports each change to all workers. It sends all changes that it knows to a worker with a new link, and
    over a new link of its own to all. ``message_of`` writes the message that names some changes.
    """

    def __init__(
        self, names: Names, publisher: Publisher, keep: float, message_of: Callable[[dict[str, Change]], Message]
    ) -> None:
        self._names = names
        self._publisher = publisher
        self._keep = keep
        self._message_of = message_of
        self._changes: ExpiringDict[Change] = ExpiringDict(keep)
        self._news: dict[str, Change] = {}
        self._tasks = Tasks()

    def get(self, key: str) -> Change | None:
        """Return the latest change of a key, if it is remembered."""
        return self._changes.get(key)

    def note(self, key: str, change: Change) -> None:
        """Remember a change, and tell all workers."""
        self._changes.set(key, change)
        self._tell_soon(key, change)

    def after_the_last(self, key: str, at: float) -> float:
        """Return ``at``, or a time just after the key's last change, whose clock may be ahead of ours."""
        known = self.get(key)
        return at if known is None else max(at, math.nextafter(known.at, math.inf))

    def hear(self, told: Iterable[tuple[str, Change]]) -> None:
        """Take changes from another worker. A repeated report does not extend the time for which one is remembered."""
        earliest = time.time() - self._keep
        for key, change in told:
            known = self.get(key)
            if change.at > max(earliest, 0.0 if known is None else known.at):
                self._changes.set(key, change)

    def tell_again(self) -> None:
        """Send all known changes again, because a worker that started while this one was away may know none of them."""
        for key, change in self._changes.items():
            self._tell_soon(key, change)

    def tell_newcomer(self, queue: str) -> None:
        """Send all known changes to a worker that has a new link, to its ``queue``."""
        self._tasks.start(self._tell(dict(self._changes.items()), "", queue), "changes-newcomer")

    def _tell_soon(self, key: str, change: Change) -> None:
        if not self._news:
            self._tasks.start(self._tell_news(), "changes")
        self._news[key] = change

    async def _tell_news(self) -> None:
        await asyncio.sleep(GATHER)
        news, self._news = self._news, {}
        await self._tell(news, self._names.workers, "")

    async def _tell(self, told: dict[str, Change], exchange: str, key: str) -> None:
        changes = list(told.items())
        for start in range(0, len(changes), BATCH):
            message = self._message_of(dict(changes[start : start + BATCH]))
            with suppress(BrokerError):  # all changes are reported when the link is back
                await self._publisher.publish(message, exchange, key, confirm=False)

    async def stop(self) -> None:
        """Stop sending changes."""
        await self._tasks.cancel()
