"""Which calls have ended a while ago, known to every worker: whoever is the placer next must not open them again.

A start or a recipe may come a second time behind the end: from a dead worker's inbox, or from the hands of a placer
that is no more. Ends are told to all at once, and again to everybody who comes and asks.
"""

from contextlib import suppress

import structlog
from pydantic import ValidationError

from consumer.broker.errors import BrokerError
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names
from consumer.calls.memory import Memory
from consumer.calls.tasks import Tasks
from schemas.ids import CallId, WorkerId
from schemas.internal import Endings as EndingsMessage

log = structlog.get_logger(__name__)

BATCH = 1000
"""How many calls one message names."""


class Endings:
    """The tombstones of all workers, ``keep`` seconds each."""

    def __init__(self, worker_id: WorkerId, names: Names, publisher: Publisher, keep: float) -> None:
        self._worker_id = worker_id
        self._names = names
        self._publisher = publisher
        self._memory: Memory[bool] = Memory(keep)
        self._news: dict[CallId, bool] = {}
        self._tasks = Tasks()

    def __contains__(self, call_id: CallId) -> bool:
        return self._memory.get(call_id) is not None

    def note(self, call_id: CallId) -> None:
        """The call has ended."""
        self._memory.set(call_id, value=True)
        self._tell_soon(call_id, ended=True)

    def lift(self, call_id: CallId) -> None:
        """Somebody who knows better opens the call again."""
        if call_id in self:
            self._memory.drop(call_id)
            self._tell_soon(call_id, ended=False)

    def hear(self, delivery: Delivery) -> None:
        """Another worker tells."""
        try:
            message = EndingsMessage.model_validate_json(delivery.message.body)
        except ValidationError as error:  # of another version
            log.warning("endings.unreadable", error=str(error))
            return
        if message.worker_id != self._worker_id:
            for call_id in message.ended:
                self._memory.set(call_id, value=True)
            for call_id in message.lifted:
                self._memory.drop(call_id)

    def tell_all(self) -> None:
        """Tell everything that is known: somebody is new."""
        for call_id in self._memory.remembered():
            self._tell_soon(CallId(call_id), ended=True)

    def _tell_soon(self, call_id: CallId, *, ended: bool) -> None:
        if not self._news:
            self._tasks.start(self._tell(), "endings")
        self._news[call_id] = ended

    async def _tell(self) -> None:
        news, self._news = self._news, {}
        told = list(news.items())
        for start in range(0, len(told), BATCH):
            batch = told[start : start + BATCH]
            message = EndingsMessage(
                worker_id=self._worker_id,
                ended=[call_id for call_id, ended in batch if ended],
                lifted=[call_id for call_id, ended in batch if not ended],
            )
            with suppress(BrokerError):  # all is told when the link is back
                await self._publisher.fast(
                    Message(body=message.model_dump_json().encode(), type=EndingsMessage.type, persistent=False),
                    self._names.workers,
                    "",
                )

    async def stop(self) -> None:
        """Tell no more."""
        await self._tasks.cancel()
