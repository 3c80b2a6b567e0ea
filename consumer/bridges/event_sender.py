"""Sends a bridge's events to the broker: in order, with confirms, and kept while the broker is away."""

import asyncio
from collections.abc import Callable

import structlog

from consumer.bridges.kept import Kept, LeftOut, Waiting
from consumer.broker.message import Message
from consumer.broker.outbox import WINDOW, Outbox
from consumer.broker.publisher import Publisher
from consumer.concurrency.task_set import cancel_and_wait
from consumer.observability import metrics
from schemas.base import iso

log = structlog.get_logger(__name__)


class EventSender:
    """Publishes call events to ``exchange``, and keeps up to ``limit`` that wait.

    Unconfirmed events are sent again, so they may arrive twice. Repeated call events change nothing.
    """

    def __init__(self, publisher: Publisher, exchange: str, limit: int) -> None:
        self._publisher = publisher
        self._exchange = exchange
        self._limit = limit
        self._kept = Kept(limit)
        self._outbox = Outbox(publisher, self._confirmed, mandatory=True)
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._kept) + len(self._outbox)

    def put(self, one: Waiting) -> None:
        """Queue an event for publishing. Events keep their order."""
        if (left_out := self._kept.put(one)) is not None:
            self._tell(left_out)
        self._changed.set()

    def _tell(self, left_out: LeftOut) -> None:
        for outcome, count in (("over", left_out.over + left_out.needless), ("lost", left_out.lost)):
            metrics.of(metrics.BRIDGE_EVENTS, outcome).inc(count)
        say: Callable[..., None] = log.error if left_out.lost else log.warning
        say(
            "bridge.no_room",
            limit=self._limit,
            of_calls_over=left_out.over,
            outdated=left_out.needless,
            lost=left_out.lost,
            since=iso(left_out.since),
            until=iso(left_out.until),
            hint="the broker is unavailable; asterisk.max_kept limits how many events wait for it",
        )

    def _confirmed(self, _message: Message, _delay: float) -> None:
        metrics.of(metrics.BRIDGE_EVENTS, "published").inc()
        self._changed.set()

    async def run(self) -> None:
        """Publish queued events until cancelled."""
        publishing = asyncio.create_task(self._outbox.run(), name="bridge-outbox")
        try:
            while True:
                await self._publisher.wait_attached()
                while self._kept and len(self._outbox) < WINDOW:
                    self._outbox.put(self._kept.take().message, self._exchange, "")
                self._changed.clear()
                if not self._kept or len(self._outbox) >= WINDOW:
                    await self._changed.wait()
        finally:
            await cancel_and_wait(publishing)

    async def flush(self, timeout: float) -> bool:
        """Wait ``timeout`` seconds at most until the broker has every event. Return whether it has."""
        try:
            async with asyncio.timeout(timeout):
                while len(self):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
