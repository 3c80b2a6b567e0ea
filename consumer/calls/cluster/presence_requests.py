"""Asks every worker to report its presence."""

from contextlib import suppress

from consumer.broker.errors import BrokerError
from consumer.broker.message import Message
from consumer.broker.publisher import Publisher
from consumer.concurrency.task_set import Tasks
from schemas.ids import WorkerId
from schemas.internal import PresenceRequest


class PresenceRequests:
    """Asks all workers to report now; each report comes to the queue of every worker."""

    def __init__(self, publisher: Publisher, workers_exchange: str, worker_id: WorkerId, tasks: Tasks) -> None:
        self._publisher = publisher
        self._exchange = workers_exchange
        self._worker_id = worker_id
        self._tasks = tasks

    async def send(self, *, ended_calls_to: str | None = None) -> None:
        """Ask; the workers also tell which calls have ended, to the queue ``ended_calls_to``.

        Raises:
            BrokerError: there is no link.
        """
        body = PresenceRequest(worker_id=self._worker_id).model_dump_json().encode()
        message = Message(body=body, type=PresenceRequest.type, reply_to=ended_calls_to, persistent=False)
        await self._publisher.publish(message, self._exchange, "", confirm=False)

    def send_soon(self) -> None:
        """Ask in a task of its own; without a link nothing is asked, because each new link asks anew."""
        self._tasks.start(self._send_if_linked(), "presence-request")

    async def _send_if_linked(self) -> None:
        with suppress(BrokerError):
            await self.send()
