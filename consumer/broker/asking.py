"""Asking over the broker: questions with a reply address, and their answers by correlation id."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

from consumer.broker.errors import BrokerUnavailable
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from schemas.replies import REPLY_SUFFIX


class Asker:
    """Sends questions whose answers come to ``reply_to``, and matches them by correlation id."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.reply_to = ""
        """Where answers come."""
        self._asked: dict[str, asyncio.Queue[Delivery | None]] = {}

    def attach(self, reply_to: str) -> None:
        """A new link: where answers come from now on."""
        self.reply_to = reply_to

    def detach(self) -> None:
        """The link is lost, and with it the answers that were on their way."""
        for answers in self._asked.values():
            answers.put_nowait(None)

    def heard(self, delivery: Delivery) -> bool:
        """Take an answer; returns whether somebody here had asked."""
        answers = self._asked.get(delivery.message.correlation_id or "")
        if answers is None:
            return False
        answers.put_nowait(delivery)
        return True

    async def ask(
        self,
        message: Message,
        exchange: str,
        routing_key: str,
        *,
        timeout: float,
        confirmed: bool = True,
        interim: Callable[[Delivery], Awaitable[None]] | None = None,
    ) -> Delivery:
        """Ask one, and have the broker confirm the question unless told otherwise.

        What comes before the reply (its type does not end in ``.reply``) is given to ``interim``.

        Raises:
            TimeoutError: nobody answered within ``timeout`` seconds.
            BrokerError: the question or the answer was lost with the link.
        """
        question = self._question(message)
        answers = self._asked[question.correlation_id or ""] = asyncio.Queue()
        try:
            if confirmed:
                await self._publisher.confirmed(question, exchange, routing_key)
            else:
                await self._publisher.fast(question, exchange, routing_key)
            async with asyncio.timeout(timeout):
                while True:
                    answer = _present(await answers.get())
                    if interim is None or (answer.type or "").endswith(REPLY_SUFFIX):
                        return answer
                    await interim(answer)
        finally:
            del self._asked[question.correlation_id or ""]

    async def gather(
        self, message: Message, exchange: str, routing_key: str, *, expected: int, timeout: float
    ) -> list[Delivery]:
        """Ask many; returns what has been answered when ``expected`` answers are there or ``timeout`` s are over."""
        question = self._question(message)
        answers = self._asked[question.correlation_id or ""] = asyncio.Queue()
        heard: list[Delivery] = []
        try:
            await self._publisher.fast(question, exchange, routing_key)
            async with asyncio.timeout(timeout):
                while len(heard) < expected:
                    heard.append(_present(await answers.get()))
        except TimeoutError:
            pass
        finally:
            del self._asked[question.correlation_id or ""]
        return heard

    def _question(self, message: Message) -> Message:
        return replace(message, reply_to=self.reply_to, correlation_id=uuid.uuid4().hex)


def _present(delivery: Delivery | None) -> Delivery:
    if delivery is None:
        raise BrokerUnavailable("the link was lost before the answer came")
    return delivery
