"""The placer: finds an owner for messages of calls that have none.

The placer is the worker that the broker has made the single active consumer of the unowned queue. ``decisions`` decides
what happens to a message, and this module carries it out.
"""

import asyncio
import dataclasses
import math
import time
from functools import partial
from typing import assert_never

import structlog

from consumer.broker.channel import Channel
from consumer.broker.message import Delivery, Headers
from consumer.broker.outcome import Done, Forward, Outcome, ToDeadLetters, decided, told_about
from consumer.broker.settling import Settler
from consumer.broker.topology import Names
from consumer.calls.cluster.ended_calls import Endings
from consumer.calls.cluster.inbox_probe import PROBE
from consumer.calls.cluster.membership import PRESENCE_TIMEOUT, Presence
from consumer.calls.cluster.presence_requests import PresenceRequests
from consumer.calls.context import Configured
from consumer.calls.events import Reporter
from consumer.calls.messages import forwarding
from consumer.calls.messages.deadlines import check_deadline, deadline_of
from consumer.calls.messages.parsing import Addressed, about, read_addressed, refused, service_named_by
from consumer.calls.messages.recipes import is_untold, opened_by
from consumer.calls.placement.admission import Admission
from consumer.calls.placement.decisions import (
    MAX_DEATHS,
    Admit,
    Circumstances,
    ConfirmOwner,
    EndCall,
    SendAgain,
    ToOwner,
    decide,
    is_poison,
)
from consumer.calls.placement.orphans import Orphans, given_up_by, inbox_of_death, without_former_hop
from consumer.calls.placement.placements import Placement, Placements, Term
from consumer.concurrency.keyed_queues import KeyedQueues
from consumer.concurrency.task_set import Tasks
from consumer.observability import metrics, tracing
from schemas import headers
from schemas.errors import Capacity, Internal, LimitReached, SessionsError
from schemas.ids import CallId, ServiceName, SessionId, WorkerId, routing_key
from schemas.internal import Recipe
from schemas.replies import EndResult, failed, succeeded
from schemas.requests import CallProgress, CallRequest, CallStarted, SessionClose, SessionCreate, ToolsCall, Use

log = structlog.get_logger(__name__)

REORDER = 0.5
"""How long (s) an end without an owner waits for its start.

Competing consumers of raw events may swap two that were published milliseconds apart.
"""

_STARTS = {CallStarted.type, CallProgress.type, SessionCreate.type}


class Placer:
    """Takes deliveries of the unowned queue."""

    def __init__(
        self,
        names: Names,
        settler: Settler,
        placements: Placements,
        orphans: Orphans,
        *,
        presence: Presence,
        presence_requests: PresenceRequests,
        endings: Endings,
        reporter: Reporter,
        configured: Configured,
    ) -> None:
        self._names = names
        self._settler = settler
        self._placements = placements
        self._orphans = orphans
        self._presence = presence
        self._presence_requests = presence_requests
        self._endings = endings
        self._reporter = reporter
        self._configured = configured
        self._admission = Admission(presence)
        self._lanes = KeyedQueues("placer")
        self._tasks = Tasks()
        self._channel: Channel | None = None
        self._term: Term | None = None

    def attach(self, channel: Channel) -> None:
        """Use the channel of a new link, on which the unowned queue will be consumed."""
        self._channel = channel
        self._end_term()
        self._placements.clear()

    async def detach(self) -> None:
        """Drop the messages in progress: the link is lost, and RabbitMQ delivers them to the next placer."""
        self._channel = None
        self._end_term()
        await self._lanes.abandon()
        await self._tasks.cancel()

    async def resign(self, timeout: float) -> None:
        """Take no more messages, and finish those in progress. The rest returns to the broker with the channel."""
        self._channel = None
        await self._lanes.drain(timeout)
        await self.detach()

    @property
    def is_placing(self) -> bool:
        """Return whether this worker is the placer. The broker's first delivery makes it the placer."""
        return self._term is not None

    @property
    def waiting(self) -> int:
        """How many starts wait for room."""
        return len(self._admission)

    def look_for_room(self) -> None:
        """Give new room, which a report may bring, to the starts that wait longest."""
        self._admission.look()

    def take(self, delivery: Delivery) -> None:
        """Take a delivery of the unowned queue."""
        if self._channel is None:
            return  # given back with its channel
        term = self._current_term(self._channel)
        if delivery.type == PROBE:  # somebody's, that was too late
            self._tasks.start(delivery.ack(), "placer-probe")
            return
        try:
            call_id, message = read_addressed(delivery, self._names)
        except SessionsError as error:
            self._tasks.start(self._settler.settle(delivery, decided(refused(error))), "placer-refuse")
            return
        self._lanes.submit(call_id, partial(self._settle, delivery, call_id, message, term), tag=delivery.type or "")

    def _current_term(self, channel: Channel) -> Term:
        if self._term is None:
            log.info("placer.elected")
            self._term = Term(channel)
            self._presence_requests.send_soon()
        return self._term

    def _end_term(self) -> None:
        if self._term is not None:
            self._term.is_over = True
        self._term = None

    async def _settle(self, delivery: Delivery, call_id: CallId, message: Addressed, term: Term) -> None:
        await self._settler.settle(delivery, self._placed(delivery, call_id, message, term))

    async def _placed(self, delivery: Delivery, call_id: CallId, message: Addressed, term: Term) -> Outcome:
        with tracing.span("place", {"mcp_sessions.call_id": call_id}):
            outcome = await self._place(delivery, call_id, message, term)
        if isinstance(message, Use):
            # At most once: whether it is answered or sent on, the next placer must not get it as well. What is lost
            # with the link is answered by nobody, and its requester repeats it under its key.
            await delivery.ack()
        what = outcome.what
        if what == "placed":
            metrics.PLACEMENT.observe(time.monotonic() - delivery.received_at)
            what = "restored" if isinstance(message, Recipe) else what
        elif isinstance(outcome, Done):
            what = outcome.word
        metrics.of(metrics.PLACEMENTS, what).inc()
        return told_about(outcome, **about(message))

    async def _place(self, delivery: Delivery, call_id: CallId, message: Addressed, term: Term) -> Outcome:
        if isinstance(message, ToolsCall) and headers.LATE in delivery.message.headers:
            return Done(what="not_repeated")  # it may have been executed: at most once
        given = delivery.message.headers
        if isinstance(message, Recipe):
            delivery = self._orphans.known_lost(delivery, message)
            if is_untold(message, delivery.message.headers, inbox_of_death(given, self._names)):
                delivery = await self._orphans.tell_lost(delivery, message)
        delivery = without_former_hop(delivery, self._names)
        given = delivery.message.headers
        dead = await self._orphans.dead_owner(delivery, call_id, term)
        if isinstance(dead, Forward):
            return dead
        if isinstance(dead, SendAgain):
            return self._send_again(delivery, call_id, orphan_of=given_up_by(delivery, self._names))
        if dead is not None and isinstance(message, ToolsCall):
            return Done(what="not_repeated")  # the same
        if delivery.redelivered or (dead is not None and headers.RESENT not in given):
            # Whoever was the placer since may have bound the call already: sent once more, it reaches its owner.
            self._placements.sent_again(call_id)
            return self._send_again(delivery, call_id, orphan_of=dead, late=isinstance(message, ToolsCall))
        if dead is not None:
            deaths = int(given.get(headers.DEATHS, 0)) + 1
            delivery = dataclasses.replace(delivery, message=delivery.message.with_headers({headers.DEATHS: deaths}))
            if is_poison(message, deaths):
                return _poison(delivery, call_id)
        is_known = self._placements.of(call_id) is not None
        await self._orphans.release_disowned(given, call_id, term)
        if self._placements.comes_behind(call_id, given) or (_came_back(given) and not is_known):
            return self._send_again(delivery, call_id)
        return await self._decide(delivery, call_id, message, term)

    async def _decide(self, delivery: Delivery, call_id: CallId, message: Addressed, term: Term) -> Outcome:
        placement = self._placement(call_id)
        given = Circumstances(
            placed=placement is not None,
            ended=self._has_ended(delivery, call_id, message),
            resent=headers.RESENT in delivery.message.headers,
            orphaned=headers.DEATHS in delivery.message.headers,
            closed=self._closed(message),
        )
        try:
            if given.resent and placement is None and isinstance(message, Use):
                service = service_named_by(message)
                if service is not None:  # nobody has its session, and nobody means a service that is not there
                    self._check_offered(service)
            decision = decide(message, given, self._configured)
            match decision:
                case Done():
                    if isinstance(message, SessionClose):  # what it means may come back from a recipe
                        self._endings.note_closed(message.session_id, ())
                    return decision
                case ToOwner():
                    assert placement is not None, "it is decided so where there is one"
                    believed = {headers.BELIEVED: self._placements.mark(placement.number)}
                    return self._placements.to_inbox(placement.owner, call_id, delivery.message, believed)
                case SendAgain():
                    if isinstance(message, CallRequest):
                        check_deadline(delivery, message)
                    return self._send_again(delivery, call_id)
                case Admit():
                    if isinstance(message, CallRequest):
                        self._check_request(delivery, message, decision)
                    return await self._admit(delivery, call_id, decision, term)
                case EndCall():
                    return await self._end(delivery, call_id)
                case ConfirmOwner(asker=asker):
                    return await self._confirm_owner(delivery, call_id, asker, term)
                case _:
                    assert_never(decision)
        except SessionsError as error:
            if isinstance(message, SessionCreate) and not delivery.expects_answers:
                self._reporter.unanswered(message, error)
            if not isinstance(message, Use):  # that is handled once at most, and its requester waits
                await self._rejection_confirmed(delivery, error)
            return Done(failed(error), failed_as=_refused(message))

    async def _rejection_confirmed(self, delivery: Delivery, error: SessionsError) -> None:
        """Wait until RabbitMQ has the event of a rejection, which precedes the acknowledgement.

        Otherwise nobody would hear of it if this worker died in between. What a reply says has no event, except that
        there is no room.

        Raises:
            BrokerError: the link was lost meanwhile, and the message comes again.
        """
        if isinstance(error, LimitReached) or not delivery.expects_answers:
            await self._reporter.settled()

    def _has_ended(self, delivery: Delivery, call_id: CallId, message: Addressed) -> bool:
        """Return whether the call has ended and ``message`` does not open it again.

        A recipe is younger than the sessions in it, which a start may have opened on a worker that did not know.
        """
        sent = delivery.message.timestamp
        if isinstance(message, CallStarted | CallProgress):
            return self._endings.bars_start(call_id, sent)
        if isinstance(message, SessionCreate) and headers.DEATHS not in delivery.message.headers:
            return self._endings.came_behind(call_id, sent)
        if isinstance(message, Recipe):
            opened = opened_by(message, delivery.message.headers)
            if opened.sent is not None:
                return self._endings.ends(call_id, opened)
        return self._endings.bar(call_id, sent)

    def _closed(self, message: Addressed) -> frozenset[SessionId]:
        sessions = message.sessions if isinstance(message, Recipe) else ()
        return frozenset(one.session_id for one in sessions if self._endings.was_closed(one.session_id, one.created_at))

    def _placement(self, call_id: CallId) -> Placement | None:
        placement = self._placements.of(call_id)
        if placement is not None and not self._presence.knows(placement.owner):
            self._placements.forget(call_id, placement.owner)  # it has left, and its inbox with it
            return None
        return placement

    def _check_request(self, delivery: Delivery, request: CallRequest, decision: Admit) -> None:
        """Check that the caller of a request still waits, and that a worker offers its service.

        Raises:
            DeadlineExceeded: its caller no longer waits.
            OutcomeUnknown: the same, but its first copy may have been executed.
            ServiceNotFound: no worker has a service of that name.
            ServiceDisabled: it is not enabled.
        """
        check_deadline(delivery, request)
        for one in decision.wanted if decision.named else ():
            self._check_offered(one.service_name)
        if decision.commanded:
            self._endings.lift(request.call_id)

    def _check_offered(self, service: ServiceName) -> None:
        # Another worker may be configured for a service that this one does not know, or has disabled.
        if not self._presence.offers(service):
            self._configured.service(service)

    # Carrying out.

    def _send_again(
        self, delivery: Delivery, call_id: CallId, orphan_of: WorkerId | None = None, *, late: bool = False
    ) -> Forward:
        orphaned = {headers.ORPHAN_OF: orphan_of} if orphan_of is not None else {}
        marks = {headers.LATE: True} if late or orphaned else {}
        message = forwarding.onward(delivery.message, {headers.RESENT: True} | marks | orphaned)
        if delivery.type in _STARTS:  # its wait for room began with the placer that had it first
            message = message.with_headers(
                {headers.ADMISSION: headers.milliseconds(self._admitted_until(message.headers))}
            )
        return Forward(self._names.sessions, routing_key(call_id), message, what="resent")

    def _admitted_until(self, given: Headers) -> float:
        """Return until when (s since the epoch) a start may wait for room. Its first placer has set this time."""
        longest = time.time() + self._configured.timings.admission_wait
        return min(longest, float(given.get(headers.ADMISSION, math.inf)) / 1000)

    async def _admit(self, delivery: Delivery, call_id: CallId, decision: Admit, term: Term) -> Outcome:
        services = tuple(one.service_name for one in decision.wanted)
        given = delivery.message.headers
        until = self._admitted_until(given)
        await self._presence.refreshed()
        now = time.time()
        without = {WorkerId(str(given[headers.REFUSED]))} if headers.REFUSED in given else set()
        if until <= now:  # who has just become the placer hears the others, before it says that nobody has room
            await self._presence.has_listened(PRESENCE_TIMEOUT)
        deadline = {}
        if decision.timeout is not None:  # the wait for room is part of it
            left = deadline_of(delivery, decision.timeout) - time.monotonic()
            deadline[headers.DEADLINE] = headers.milliseconds(now + left)
        try:
            # Where all workers leave, none can say that there is no room, and what comes again waits for another one.
            limited = self._presence.any_ready or not decision.comes_again
            placement = await self._find_room(services, until if limited else None, now, without)
        except LimitReached as error:
            roomy = self._admission.with_room(services, without)
            if 0 < len(roomy) < len(services):  # the owner rejects what it cannot open
                partly = [one for one in decision.wanted if one.service_name in roomy]
                return await self._admit(delivery, call_id, dataclasses.replace(decision, wanted=partly), term)
            for one in decision.wanted:
                self._reporter.rejected(call_id, one.session_id, one.service_name, error, one.metadata)
            raise
        marks = {headers.ADMISSION: headers.milliseconds(until)} | deadline
        return await self._placements.bind(call_id, placement, delivery.message, term, marks)

    async def _find_room(
        self, services: tuple[ServiceName, ...], until: float | None, now: float, without: set[WorkerId]
    ) -> Placement:
        if until is not None and without and until <= now:
            raise Capacity("every worker is full; another call took the last place")
        loop_until = None if until is None else asyncio.get_running_loop().time() + until - now
        worker, number = await self._admission.admit(services, until=loop_until, without=without)
        return Placement(worker, number)

    async def _end(self, delivery: Delivery, call_id: CallId) -> Outcome:
        if headers.RESENT not in delivery.message.headers and call_id not in self._endings:
            await asyncio.sleep(REORDER)
            if self._lanes.waiting(call_id) & _STARTS:
                return self._send_again(delivery, call_id)  # behind the start, which is placed next
        self._endings.note(call_id)
        return Done(succeeded(EndResult(closed=[]).model_dump()), what="tombstone")

    async def _confirm_owner(self, delivery: Delivery, call_id: CallId, asker: WorkerId, term: Term) -> Outcome:
        if not await self._presence.lives(asker):  # else it may have left, and its inbox with it
            return Done(what="asker_gone")
        placement = Placement(asker, self._presence.place(asker, ()))
        return await self._placements.bind(call_id, placement, delivery.message, term, {})


def _came_back(given: Headers) -> bool:
    """Return whether a worker has returned the message. It may have been routed there before the last placement."""
    return headers.RESENT not in given and bool({headers.RETURNED, headers.REFUSED} & given.keys())


def _refused(message: Addressed) -> str:
    """Return the outcome of a message that gets no worker: for a start or a recipe, the owner's word for the same."""
    match message:
        case CallStarted() | CallProgress():
            return "not_opened"
        case Recipe():
            return "not_restored"
        case _:
            return "failed"


def _poison(delivery: Delivery, call_id: CallId) -> ToDeadLetters:
    problem = f"{MAX_DEATHS} workers died while they handled this message"
    log.error("placer.poison_message", call_id=call_id, type=delivery.type)
    return ToDeadLetters("crash_loop", problem, failed(Internal(problem)))
