"""Settling deliveries, each exactly once, and the one canonical log line of each."""

import asyncio
import time
from collections.abc import Awaitable
from typing import assert_never

import structlog

from consumer.broker.errors import BrokerError
from consumer.broker.message import Delivery, Message
from consumer.broker.outcome import Done, Forward, Hold, Outcome, Park, Requeue
from consumer.broker.parked import parked
from consumer.broker.publisher import Publisher
from schemas.errors import Internal
from schemas.replies import REPLY_SUFFIX, Reply, failed

log = structlog.get_logger(__name__)

PAUSE = 0.3
"""How long (s) a message rests that the broker refused: the delivery limit must outlast a queue's election."""


def _defect(problem: str) -> Park:
    return Park("defect", problem, failed(Internal("this request met a defect of the worker; its log tells more")))


class Settler:
    """Carries out outcomes."""

    def __init__(self, publisher: Publisher, dead_exchange: str) -> None:
        self._publisher = publisher
        self._dead = dead_exchange

    async def settle(self, delivery: Delivery, deciding: Awaitable[Outcome]) -> None:
        """Wait for the decision and carry it out; never raises, but for cancellation.

        A decision that raises is a defect of ours: the message is parked, who asked gets ``INTERNAL``. A broker that
        fails meanwhile has the message, or gets it, back: redelivery is harmless everywhere.
        """
        problem: str | None = None
        outcome: Outcome
        try:
            outcome = await deciding
            await self._carry_out(delivery, outcome)
        except BrokerError as error:
            outcome = Requeue(repr(error))
            await asyncio.sleep(PAUSE)
            await delivery.requeue()
        except Exception as error:
            log.exception("delivery.defect", type=delivery.type, queue=delivery.queue)
            outcome = _defect(repr(error))
            problem = await self._carried_out(delivery, outcome)
        took = time.monotonic() - delivery.received_at
        level = log.warning if problem or isinstance(outcome, Park | Requeue) else log.info
        level(
            "delivery",
            type=delivery.type,
            queue=delivery.queue,
            outcome="requeued" if problem else outcome.what,
            call_id=delivery.call,
            ms=round(took * 1000, 1),
            **_details(delivery, outcome, problem),
        )

    async def _carried_out(self, delivery: Delivery, outcome: Outcome) -> str | None:
        try:
            await self._carry_out(delivery, outcome)
        except BrokerError as error:
            await asyncio.sleep(PAUSE)
            await delivery.requeue()
            return repr(error)
        return None

    async def _carry_out(self, delivery: Delivery, outcome: Outcome) -> None:
        match outcome:
            case Done(reply=reply):
                await self.reply(delivery, reply)
                await delivery.ack()
            case Forward(exchange=exchange, routing_key=key, message=message):
                await self._publisher.confirmed(message, exchange, key)
                await delivery.ack()
            case Park(reason=reason, problem=problem, reply=reply):
                await self._park(delivery, reason, problem)
                await self.reply(delivery, reply)
                await delivery.ack()
            case Hold():
                pass
            case Requeue():
                await delivery.requeue()
            case _:
                assert_never(outcome)

    async def reply(self, delivery: Delivery, reply: Reply | bytes | None) -> None:
        """Answer who asked, if anybody did and waits under an address."""
        request = delivery.message
        if reply is None or not request.reply_to:
            return
        body = reply if isinstance(reply, bytes) else reply.dump()
        await self.answer(request, body, f"{request.type or 'unknown'}{REPLY_SUFFIX}")

    async def answer(self, request: Message, body: bytes, message_type: str) -> None:
        """Send ``body`` to the reply address of ``request``, without confirms and without ``mandatory``.

        A mandatory publish to a direct reply-to address is returned although it arrives (up to 4.1).
        """
        assert request.reply_to is not None
        await self._publisher.fast(
            Message(
                body=body,
                type=message_type,
                correlation_id=request.correlation_id,
                persistent=False,
            ),
            "",
            request.reply_to,
        )

    async def _park(self, delivery: Delivery, reason: str, problem: str) -> None:
        await self._publisher.confirmed(parked(delivery, reason, problem), self._dead, "")


def _details(delivery: Delivery, outcome: Outcome, problem: str | None) -> dict[str, object]:
    details: dict[str, object] = {}
    match outcome:
        case Done(reply=Reply(error=error)) if error is not None:
            details["code"] = error.code.value
        case Park(reason=reason, problem=text):
            details |= {"reason": reason, "error": text, "exchange": delivery.exchange, "key": delivery.routing_key}
        case Requeue(problem=text):
            details["error"] = text
        case _:
            pass
    return details | ({"error": problem} if problem else {})
