"""Settles each delivery exactly once, and logs one line for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import assert_never

import structlog

from consumer.broker.dead_letter import as_dead_letter
from consumer.broker.direct_reply import is_direct_reply
from consumer.broker.errors import BrokerError, MessageTooLarge, PublishFailed, Unsendable
from consumer.broker.frames import SHORT, shortened
from consumer.broker.message import Delivery, Message
from consumer.broker.outcome import Done, Forward, Hold, Outcome, Requeue, ToDeadLetters
from consumer.broker.publisher import Publisher
from consumer.observability import metrics, tracing
from consumer.observability.log_limiter import LogLimiter
from consumer.observability.reasons import reason_of
from schemas.errors import Internal, InvalidMessage
from schemas.replies import REPLY_SUFFIX, Reply, failed

log = structlog.get_logger(__name__)

PAUSE = 0.3
"""How long (s) to wait before a message that the broker refused is requeued."""


def _unsendable(error: Unsendable) -> ToDeadLetters:
    problem = f"it cannot be forwarded: {error}"
    return ToDeadLetters("invalid_message", problem, failed(InvalidMessage(problem)))


def _defect(problem: str) -> ToDeadLetters:
    return ToDeadLetters("defect", problem, failed(Internal("internal error in the worker; its log has the details")))


class Settler:
    """Carries out the outcomes of deliveries.

    ``dead_lettered`` is called with the reason of each dead letter. ``restore`` declares the dead-letter queue again if
    it is missing. ``kind_of`` returns the kind of a delivery, for the metrics. A ``quiet`` kind begins no trace.
    """

    def __init__(
        self,
        publisher: Publisher,
        dead_exchange: str,
        *,
        dead_lettered: Callable[[str], None],
        restore: Callable[[], Awaitable[None]],
        kind_of: Callable[[Delivery], str] = lambda _: metrics.OTHER,
        quiet: Collection[str] = (),
    ) -> None:
        self._publisher = publisher
        self._dead = dead_exchange
        self._kind_of = kind_of
        self._quiet = quiet
        self._dead_lettered = dead_lettered
        self._restore = restore
        self._restoring = asyncio.Lock()
        self._dropped_replies = LogLimiter()

    async def settle(self, delivery: Delivery, deciding: Awaitable[Outcome]) -> None:
        """Wait for the decision and carry it out. It raises nothing, except when it is cancelled.

        An exception in a decision is a bug: the message becomes a dead letter, and the requester gets ``INTERNAL``. If
        the broker fails meanwhile, it delivers the message again, which is always harmless. If the answer can never be
        sent (``Unsendable``), the message becomes a dead letter, because the next try would fail too.
        """
        kind = self._kind_of(delivery)
        message = delivery.message
        with tracing.processing(
            kind,
            message.headers,
            delivery.queue,
            message.message_id,
            delivery.received_at,
            begin=kind not in self._quiet,
        ) as span:
            word = await self._settle(delivery, deciding, kind)
            span.set_attribute("mcp_sessions.outcome", word)
            if word in ("failed", "not_opened", "not_restored", "dead_lettered", "requeued"):
                tracing.failed(span, word)

    async def _settle(self, delivery: Delivery, deciding: Awaitable[Outcome], kind: str) -> str:
        problem: str | None = None
        outcome: Outcome
        try:
            outcome = await deciding
            await self._carry_out(delivery, outcome)
        except Unsendable as error:
            outcome = _unsendable(error)
            problem = await self._carried_out(delivery, outcome)
        except BrokerError as error:
            outcome = Requeue(reason_of(error))
            await asyncio.sleep(PAUSE)
            await delivery.requeue()
        except Exception as error:
            log.exception("delivery.defect", type=delivery.type, queue=delivery.queue)
            outcome = _defect(repr(error))
            problem = await self._carried_out(delivery, outcome)
        took = time.monotonic() - delivery.received_at
        word = "requeued" if problem else _word(outcome)
        metrics.of(metrics.DELIVERIES, kind, word).inc()
        metrics.of(metrics.DELIVERY, kind).observe(took)
        if isinstance(outcome, Done) and outcome.error_code is not None:
            metrics.of(metrics.ERRORS, kind, outcome.error_code.lower()).inc()
        getattr(log, _level(outcome, problem))(
            "delivery",
            type=delivery.type,
            queue=delivery.queue,
            outcome=word,
            call_id=delivery.call,
            ms=round(took * 1000, 1),
            **_details(delivery, outcome, problem),
        )
        return word

    async def _carried_out(self, delivery: Delivery, outcome: Outcome) -> str | None:
        """Carry out an outcome. Return what has failed, if the message goes back to the queue."""
        try:
            await self._carry_out(delivery, outcome)
        except Exception as error:  # noqa: BLE001 - whatever it is, the message must not be held for ever
            if isinstance(error, BrokerError) and not isinstance(error, Unsendable):
                await asyncio.sleep(PAUSE)
                await delivery.requeue()
            else:
                await delivery.reject()  # RabbitMQ makes it a dead letter, as it is
            return repr(error)
        return None

    async def _carry_out(self, delivery: Delivery, outcome: Outcome) -> None:
        match outcome:
            case Done(reply=reply):
                await self.reply(delivery, reply, outcome.about)
                await delivery.ack()
            case Forward() if delivery.local_requester is not None:
                delivery.local_requester.not_here()
            case Forward(exchange=exchange, routing_key=key, message=message):
                await self._publisher.publish(message, exchange, key)
                await delivery.ack()
            case ToDeadLetters(reason=reason, problem=problem, reply=reply):
                # A local requester knows what it asked, and hears what is wrong with it.
                if delivery.local_requester is None:
                    await self._dead_letter(delivery, reason, problem)
                await self.reply(delivery, reply)
                await delivery.ack()
            case Hold():
                pass
            case Requeue():
                await delivery.requeue()
            case _:
                assert_never(outcome)

    async def reply(
        self, delivery: Delivery, reply: Reply | bytes | None, about: Mapping[str, object] | None = None
    ) -> None:
        """Send the reply, if the message has a reply address; ``about`` is for the log line of one that is dropped."""
        if reply is None or not delivery.expects_answers:
            return
        body = reply if isinstance(reply, bytes) else reply.dump()
        message_type = shortened(delivery.type or "unknown", SHORT - len(REPLY_SUFFIX)) + REPLY_SUFFIX
        try:
            try:
                await self.answer(delivery, body, message_type, about)
            except MessageTooLarge as error:
                refusal = InvalidMessage(f"the reply is too large; request less at a time: {error}")
                await self.answer(delivery, failed(refusal).dump(), message_type, about)
        except Unsendable as error:  # nobody can have a queue of that name
            log.warning("reply.unsendable", type=delivery.type, error=str(error))

    async def answer(
        self, delivery: Delivery, body: bytes, message_type: str, about: Mapping[str, object] | None = None
    ) -> None:
        """Send ``body`` to the reply address of a request, without confirms.

        If there is no queue of that name, a log line says so. This does not work for a direct reply-to address: up to
        4.1, RabbitMQ returns a mandatory message to such an address although it arrives.

        Raises:
            BrokerUnavailable: there is no link.
            MessageTooLarge: no broker takes it.
            Unsendable: the reply address is no valid name of a queue.
        """
        if delivery.local_requester is not None:
            await delivery.local_requester.hear(body, message_type)
            return
        request = delivery.message
        assert request.reply_to is not None
        await self._publisher.publish(
            Message(
                body=body,
                type=message_type,
                correlation_id=request.correlation_id,
                persistent=False,
            ),
            "",
            request.reply_to,
            confirm=False,
            on_return=None
            if is_direct_reply(request.reply_to)
            else partial(self._returned, request.reply_to, delivery.call, message_type, about or {}),
        )

    def _returned(self, address: str, call: str | None, message_type: str, about: Mapping[str, object]) -> None:
        """Log that a message to a reply address was dropped, once a minute for each address.

        Every reply keeps this callback for a while (see ``returned``), so it holds no delivery, whose body may be
        large.
        """
        if self._dropped_replies.due(address) is not None:
            log.warning("reply.dropped", type=message_type, reply_to=address, call_id=call, **about)

    async def _dead_letter(self, delivery: Delivery, reason: str, problem: str) -> None:
        message = as_dead_letter(delivery, reason, problem)
        try:
            await self._publisher.publish(message, self._dead, "")
        except PublishFailed:
            async with self._restoring:
                await self._restore()
            await self._publisher.publish(message, self._dead, "")
            log.warning("dead_letters.restored", exchange=self._dead)
        metrics.of(metrics.DEAD_LETTERS, reason).inc()
        metrics.of(metrics.DEAD_LETTER_BYTES, reason).inc(len(delivery.message.body))
        self._dead_lettered(reason)


def _word(outcome: Outcome) -> str:
    """What became of a delivery: the same word in its log line, in the metric and in its trace."""
    return outcome.word if isinstance(outcome, Done) else outcome.what


def _level(outcome: Outcome, problem: str | None) -> str:
    if problem or isinstance(outcome, ToDeadLetters | Requeue):
        return "warning"
    return "debug" if isinstance(outcome, Done) and outcome.routine else "info"


def _details(delivery: Delivery, outcome: Outcome, problem: str | None) -> dict[str, object]:
    details: dict[str, object] = {}
    match outcome:
        case Done(about=about):
            details |= about
            if outcome.error_code is not None:
                details["code"] = outcome.error_code
            if outcome.error_told is not None:
                details["error"] = outcome.error_told
        case ToDeadLetters(reason=reason, problem=text):
            details |= {"reason": reason, "error": text, "exchange": delivery.exchange, "key": delivery.routing_key}
        case Requeue(problem=text):
            details["error"] = text
        case _:
            pass
    return details | ({"error": problem} if problem else {})
