"""The intake: translates raw call events of telephony platforms into messages that are addressed to calls."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

import structlog

from consumer.broker.message import Delivery, Message
from consumer.broker.outcome import Done, Outcome, ToDeadLetters, decided
from consumer.broker.publisher import Publisher
from consumer.broker.rpc import RpcClient
from consumer.broker.settling import Settler
from consumer.broker.topology import Names
from consumer.calls.context import Configured
from consumer.concurrency.keyed_queues import KeyedQueues
from consumer.concurrency.task_set import Tasks
from consumer.observability import metrics
from consumer.telephony import SOURCES, Ignored, Translated, Unrecognised, named_call, translate
from schemas import headers
from schemas.calls import CallEvent, CallKind, Platform
from schemas.ids import routing_key

log = structlog.get_logger(__name__)

END_ANSWER_TIMEOUT = 15.0
"""How long (s) an end waits for the owner's answer before it is sent again. A take-over fits into this time."""


def _count(source: str, kind: str) -> None:
    known = source if source in SOURCES else metrics.OTHER  # an event of our own shape names any source
    metrics.of(metrics.CALL_EVENTS, known, kind).inc()


class Intake:
    """Takes deliveries of the queue of raw events.

    A raw event is acknowledged when its effect is safe: a start when the broker has confirmed it, an end when the
    call's owner has answered. Events of one call keep their order, as far as this worker got them. ``platforms`` says
    which exchanges are one platform's own.
    """

    def __init__(
        self,
        names: Names,
        settler: Settler,
        publisher: Publisher,
        rpc_client: RpcClient,
        configured: Configured,
        platforms: Mapping[str, Platform],
    ) -> None:
        self._names = names
        self._settler = settler
        self._publisher = publisher
        self._rpc_client = rpc_client
        self._configured = configured
        self._platforms = platforms
        self._lanes = KeyedQueues("intake")
        self._tasks = Tasks()

    def take(self, delivery: Delivery) -> None:
        """Take a raw event."""
        message = delivery.message
        translation = translate(
            message.body,
            content_type=message.content_type,
            headers=message.headers,
            routing_key=delivery.routing_key,
            platform=self._platforms.get(delivery.exchange),
        )
        match translation:
            case Translated(event=event):
                _count(event.source, event.kind.value)
                self._lanes.submit(event.call_id, partial(self._settle, delivery.about_call(event.call_id), event))
            case Ignored(source=source, what=what):
                _count(source, "ignored")
                log.debug("call_event.ignored", source=source, what=what)
                self._tasks.start(self._finish(delivery, Done(what="ignored")), "intake-ignore")
            case Unrecognised(problem=problem):
                _count(metrics.OTHER, "unrecognised")
                outcome = ToDeadLetters("unrecognised", problem)
                call_id = named_call(message.body, message.headers)
                self._tasks.start(self._finish(delivery, outcome, call_id or ""), "intake-dead-letter")

    async def _finish(self, delivery: Delivery, outcome: Outcome, call_id: str = "") -> None:
        await self._settler.settle(delivery.about_call(call_id), decided(outcome))

    async def _settle(self, delivery: Delivery, event: CallEvent) -> None:
        await self._settler.settle(delivery, self._pass_on(delivery, event))

    async def _pass_on(self, delivery: Delivery, event: CallEvent) -> Outcome:
        # One that comes again, or has waited, may be older than the end of its call, and must not pass for a new one.
        happened = event.occurred_at or delivery.message.timestamp or datetime.now(UTC)
        message = Message(body=event.model_dump_json().encode(), type=event.message_type, timestamp=happened)
        key = routing_key(event.call_id)
        if event.kind is not CallKind.ENDED:
            # Its wait for room begins here: the placer sees no more than two thousand starts at once.
            until = time.time() + self._configured.timings.admission_wait
            message = message.with_headers({headers.ADMISSION: headers.milliseconds(until)})
            await self._publisher.publish(message, self._names.sessions, key)
            return _translated(event)
        while True:
            try:
                await self._rpc_client.ask(message, self._names.sessions, key, timeout=END_ANSWER_TIMEOUT)
            except TimeoutError:
                log.warning("intake.end_unanswered", call_id=event.call_id)
            else:
                return _translated(event)

    async def detach(self) -> None:
        """Drop the raw events that were taken: the link is lost, and the broker has them back."""
        await self._lanes.abandon()
        await self._tasks.cancel()

    async def drain(self, timeout: float) -> bool:
        """Wait until the raw events in progress are passed on."""
        return await self._lanes.drain(timeout) and await self._tasks.drain(timeout)


def _translated(event: CallEvent) -> Done:
    """Return the outcome of a raw event that was passed on, with its source and kind for the log line."""
    return Done(what="translated", about={"source": event.source, "kind": event.kind.value})
