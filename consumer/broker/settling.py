"""Settling deliveries, each exactly once, and the one canonical log line of each."""

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import assert_never

import structlog

from consumer.broker.errors import BrokerError, MessageTooLarge
from consumer.broker.message import Delivery, Message, own_headers
from consumer.broker.outcome import Done, Forward, Hold, Outcome, Park, Requeue
from consumer.broker.publisher import Publisher
from schemas.errors import Internal, InvalidMessage
from schemas.replies import REPLY_SUFFIX, Reply, failed

log = structlog.get_logger(__name__)

REASON_HEADER = "x-mcp-reason"
ERROR_HEADER = "x-mcp-error"
EXCHANGE_HEADER = "x-mcp-exchange"
ROUTING_KEY_HEADER = "x-mcp-routing-key"
QUEUE_HEADER = "x-mcp-queue"
PARKED_AT_HEADER = "x-mcp-parked-at"

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
        message_type = f"{request.type or 'unknown'}{REPLY_SUFFIX}"
        try:
            await self.answer(request, body, message_type)
        except MessageTooLarge as error:
            refusal = InvalidMessage(f"the answer is too large, ask for less at a time: {error}")
            await self.answer(request, failed(refusal).dump(), message_type)

    async def answer(self, request: Message, body: bytes, message_type: str) -> None:
        """Send ``body`` to the reply address of ``request``, without confirms and without ``mandatory``.

        A mandatory publish to a direct reply-to address is returned although it arrives (up to 4.1).

        Raises:
            BrokerUnavailable: there is no link.
            MessageTooLarge: no broker takes it.
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
        message = delivery.message
        parked = Message(
            body=message.body,
            type=message.type,
            message_id=message.message_id or Message(b"").message_id,
            correlation_id=message.correlation_id,
            headers=own_headers(message.headers)
            | {
                REASON_HEADER: reason,
                ERROR_HEADER: problem[:2000],
                EXCHANGE_HEADER: delivery.exchange,
                ROUTING_KEY_HEADER: delivery.routing_key,
                QUEUE_HEADER: delivery.queue,
                PARKED_AT_HEADER: datetime.now(UTC).isoformat(),
            },
            content_type=message.content_type,
            timestamp=message.timestamp,
        )
        await self._publisher.confirmed(parked, self._dead, "")


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
