"""The outbox: publishes events in order, whenever the broker is available."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice

import structlog

from consumer.broker.errors import BrokerError, BrokerUnavailable
from consumer.broker.message import MAX_BODY, Message
from consumer.broker.publisher import Publisher

log = structlog.get_logger(__name__)

WINDOW = 128
"""How many messages wait for their confirms at once."""

RETRY_DELAY = 0.2

TELL_EVERY = 60.0
"""How often (s) a failure to publish is logged. Publishing is retried all the time."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A message that the broker has not confirmed."""

    message: Message
    exchange: str
    routing_key: str
    put_at: float
    is_taken_back: bool = False
    was_sent: bool = False
    """Whether a link was given it, so that the broker may have it."""


class Outbox:
    """Publishes with confirms and in the order of ``put``, on a channel that nothing else uses.

    When a link is lost, unconfirmed messages are sent again in the same order. A consumer may get a message twice, with
    the same message id, but never an older message after a newer one. ``confirmed`` is called with each confirmed
    message and the seconds since its ``put``. With ``mandatory`` a message waits until there is a queue for it.
    """

    def __init__(
        self,
        publisher: Publisher,
        confirmed: Callable[[Message, float], None] = lambda *_: None,
        *,
        mandatory: bool = False,
    ) -> None:
        self._publisher = publisher
        self._confirmed = confirmed
        self._mandatory = mandatory
        self._told_at = -math.inf
        self._waiting: deque[_Waiting] = deque()
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._put = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Message, exchange: str, routing_key: str) -> None:
        """Publish this message after all that were put before.

        A message that is too large for any broker is dropped and logged as an error, because it would hold up all later
        ones.
        """
        if len(message.body) > MAX_BODY:
            log.error("outbox.too_large", type=message.type, bytes=len(message.body), limit=MAX_BODY)
            return
        self._waiting.append(_Waiting(message, exchange, routing_key, time.monotonic()))
        self._put += 1
        self._empty.clear()
        self._filled.set()

    def take_back(self, message_ids: Collection[str]) -> set[str]:
        """Stop publishing these events. Return the ids of the unconfirmed ones, which the broker may have nevertheless.

        Events that were taken back before are left out.
        """
        found = [one for one in self._waiting if not one.is_taken_back and one.message.message_id in message_ids]
        for one in found:
            one.is_taken_back = True
        return {str(one.message.message_id) for one in found}

    def never_sent(self, message_ids: Collection[str]) -> set[str]:
        """Return the ids of those messages that no link was given: the broker gets them with the next one."""
        return {
            str(one.message.message_id)
            for one in self._waiting
            if not (one.was_sent or one.is_taken_back) and one.message.message_id in message_ids
        }

    async def settled(self) -> None:
        """Wait until everything that has been put so far is confirmed.

        Raises:
            BrokerError: there is no link, or it was lost. The messages are published later all the same.
        """
        if self._waiting:
            if not self._publisher.attached:
                raise BrokerUnavailable(self._publisher.why_away)
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((self._put, reached))
            await reached

    async def flush(self, timeout: float) -> bool:
        """Wait ``timeout`` seconds at most until every event is confirmed. Return whether it is."""
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def _disappoint(self, error: BrokerError) -> None:
        waiters, self._waiters = self._waiters, deque()
        for _, reached in waiters:
            if not reached.done():
                reached.set_exception(error)

    def _tell(self, error: BrokerError) -> None:
        if time.monotonic() - self._told_at >= TELL_EVERY:
            self._told_at = time.monotonic()
            log.warning("outbox.retrying", waiting=len(self._waiting), error=str(error))

    async def _publish(self, one: _Waiting) -> None:
        if not one.is_taken_back:
            one.was_sent = one.was_sent or self._publisher.attached
            await self._publisher.publish(
                one.message, one.exchange, one.routing_key, mandatory=self._mandatory, outbox=True
            )

    async def run(self) -> None:
        """Publish queued events until cancelled."""
        while True:
            await self._filled.wait()
            await self._publisher.wait_attached()
            batch = list(islice(self._waiting, WINDOW))
            results = await asyncio.gather(
                *(self._publish(one) for one in batch),
                return_exceptions=True,
            )
            confirmed = 0
            for result in results:
                if isinstance(result, BrokerError):
                    self._tell(result)
                    self._disappoint(result)
                    await asyncio.sleep(RETRY_DELAY)
                    break
                if isinstance(result, BaseException):
                    raise result
                confirmed += 1
            now = time.monotonic()
            for _ in range(confirmed):
                one = self._waiting.popleft()
                if not one.is_taken_back:
                    self._confirmed(one.message, now - one.put_at)
            while self._waiters and self._waiters[0][0] <= self._put - len(self._waiting):
                _, reached = self._waiters.popleft()
                if not reached.done():
                    reached.set_result(None)
            if not self._waiting:
                self._told_at = -math.inf
                self._filled.clear()
                self._empty.set()
