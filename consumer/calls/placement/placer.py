"""The placer: finds an owner for messages of calls that have none.

It is the worker that the broker has made the single active consumer of the unowned queue, and nothing else makes it
so. It binds on the channel that it consumes on: a placer that the broker has given up cannot bind any more.
"""

import asyncio
import dataclasses
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import structlog

from consumer.broker.channel import Channel
from consumer.broker.errors import BrokerUnavailable
from consumer.broker.message import CALL_HEADER, Delivery, Headers, Message
from consumer.broker.outcome import Done, Forward, Outcome, ToDeadLetters, decided, told_about
from consumer.broker.settling import Settler
from consumer.broker.topology import Binding, Names
from consumer.calls.cluster.ended_calls import Endings
from consumer.calls.cluster.inbox_probe import PROBE
from consumer.calls.cluster.membership import ROLL_CALL, Presence
from consumer.calls.cluster.presence_requests import PresenceRequests
from consumer.calls.context import Configured
from consumer.calls.events import Reporter
from consumer.calls.messages import forwarding
from consumer.calls.messages.deadlines import check_deadline
from consumer.calls.messages.parsing import Addressed, about, read_addressed, refused
from consumer.calls.placement.admission import Admission
from consumer.calls.routes import plan
from consumer.calls.wanted import Wanted, wanted_by
from consumer.concurrency.expiring_dict import Memory
from consumer.concurrency.keyed_queues import KeyedQueues
from consumer.concurrency.task_set import Tasks
from consumer.observability import metrics, tracing
from schemas import headers
from schemas.errors import Capacity, Internal, LimitReached, SessionNotFound, SessionsError
from schemas.events import EndReason
from schemas.ids import CallId, WorkerId, routing_key
from schemas.internal import OwnerCheck, Recipe
from schemas.replies import CloseResult, EndResult, failed, succeeded
from schemas.requests import (
    CallEnded,
    CallProgress,
    CallStarted,
    CompletionComplete,
    InputAnswer,
    LoggingLevel,
    MayOpen,
    PromptsGet,
    PromptsList,
    ResourcesList,
    ResourcesRead,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
    SessionClose,
    SessionCreate,
    SessionDescribe,
    SessionGet,
    SessionTouch,
    ToolsCall,
    ToolsCancel,
    ToolsList,
    Use,
)

log = structlog.get_logger(__name__)

REMEMBER = 10.0
"""How long (s) a placement is remembered for messages that were routed before the binding took effect."""

REORDER = 0.5
"""How long (s) an end that nobody owns waits for its start.

Competing consumers of raw events may swap two that were published milliseconds apart.
"""

MAX_DEATHS = 4
"""How many workers in a row may die with a call, before the call is taken for the cause."""

_STARTS = {CallStarted.type, CallProgress.type, SessionCreate.type}


@dataclass(frozen=True, slots=True)
class _Reign:
    """One time as the placer: from the first unowned message on a channel until that channel is lost."""

    channel: Channel


class Placer:
    """Takes deliveries of the unowned queue."""

    def __init__(
        self,
        worker_id: WorkerId,
        names: Names,
        settler: Settler,
        *,
        presence: Presence,
        presence_requests: PresenceRequests,
        endings: Endings,
        reporter: Reporter,
        configured: Configured,
    ) -> None:
        self._worker_id = worker_id
        self._names = names
        self._settler = settler
        self._presence = presence
        self._presence_requests = presence_requests
        self._endings = endings
        self._reporter = reporter
        self._configured = configured
        self._admission = Admission(presence)
        self._lanes = KeyedQueues("placer")
        self._tasks = Tasks()
        self._placements: Memory[tuple[WorkerId, int]] = Memory(REMEMBER)
        self._channel: Channel | None = None
        self._reign: _Reign | None = None

    def attach(self, channel: Channel) -> None:
        """A new link: the channel that the unowned queue will be consumed on."""
        self._channel = channel
        self._reign = None
        self._placements.clear()  # another worker may have placed in the meantime; tombstones only ever hold

    async def detach(self) -> None:
        """The link is lost: what was under way will be delivered again, to whoever is the placer then."""
        self._channel = None
        self._reign = None
        await self._lanes.abandon()
        await self._tasks.cancel()

    async def resign(self, timeout: float) -> None:
        """Take nothing more, and let what is being passed on be settled; the rest goes back with the channel."""
        self._channel = None
        await self._lanes.drain(timeout)
        await self.detach()

    @property
    def reigns(self) -> bool:
        """Whether this worker is the placer, as far as it has noticed: the broker tells by what it delivers."""
        return self._reign is not None

    @property
    def waiting(self) -> int:
        """How many starts wait for room."""
        return len(self._admission)

    def look_for_room(self) -> None:
        """Give room that has appeared, as a report of a worker may say, to the starts that wait longest."""
        self._admission.look()

    def take(self, delivery: Delivery) -> None:
        """Take a delivery of the unowned queue over."""
        if self._channel is None:
            return  # given back with its channel
        reign = self._reigning()
        if delivery.type == PROBE:  # somebody's, that was too late
            self._tasks.start(delivery.ack(), "placer-probe")
            return
        try:
            call_id, message = read_addressed(delivery)
        except SessionsError as error:
            self._tasks.start(self._settler.settle(delivery, decided(refused(error))), "placer-refuse")
            return
        self._lanes.submit(call_id, partial(self._settle, delivery, call_id, message, reign), tag=delivery.type or "")

    def _reigning(self) -> _Reign:
        if self._reign is None:
            assert self._channel is not None, "deliveries come on a channel"
            log.info("placer.elected")
            self._reign = _Reign(self._channel)
            self._presence_requests.send_soon()
        return self._reign

    async def _settle(self, delivery: Delivery, call_id: CallId, message: Addressed, reign: _Reign) -> None:
        await self._settler.settle(delivery, self._placed(delivery, call_id, message, reign))

    async def _placed(self, delivery: Delivery, call_id: CallId, message: Addressed, reign: _Reign) -> Outcome:
        with tracing.span("place", {"mcp_sessions.call_id": call_id}):
            outcome = await self._place(delivery, call_id, message, reign)
        if isinstance(message, Use):
            # At most once: whether it is answered or sent on, the next placer must not get it as well. What is lost
            # with the link is answered by nobody, and its requester repeats it under its key.
            await delivery.ack()
        what = outcome.what
        if what == "placed":
            metrics.PLACEMENT.observe(time.monotonic() - delivery.received_at)
            what = "restored" if isinstance(message, Recipe) else what
        elif isinstance(outcome, Done) and outcome.error_code is not None:
            what = "refused"
        metrics.of(metrics.PLACEMENTS, what).inc()
        return told_about(outcome, **about(message))

    # Whose is it?

    async def _place(self, delivery: Delivery, call_id: CallId, message: Addressed, reign: _Reign) -> Outcome:
        given = delivery.message.headers
        dead = await self._buried(delivery, call_id, reign)
        if isinstance(dead, Forward):
            return dead
        if dead is not None and isinstance(message, ToolsCall):
            return Done(what="not_repeated")  # it may have been executed: at most once
        if isinstance(message, Recipe) and message.worker_id == dead and headers.ORPHAN_OF not in given:
            # One of another worker was only on its way there; of one that was sent on, who did so has told.
            await self._tell_lost(message)
        if delivery.redelivered:
            # The former placer may have bound the call already: sent once more, it reaches its owner.
            return self._resend(delivery, call_id, orphan_of=dead)
        if dead is not None:
            deaths = int(given.get(headers.DEATHS, 0)) + 1
            delivery = dataclasses.replace(delivery, message=delivery.message.with_headers({headers.DEATHS: deaths}))
            if deaths >= MAX_DEATHS and not isinstance(message, CallEnded | OwnerCheck | Recipe):
                return self._deadly(delivery, call_id)
        await self._disowned(given, call_id, reign)
        if (placement := self._placements.get(call_id)) is not None:
            owner, number = placement
            if self._presence.knows(owner):
                believed = {headers.BELIEVED: self._named(number)}
                return self._to_inbox(owner, call_id, delivery.message, believed)
            self._placements.drop(call_id)  # it has left, and its inbox with it
        return await self._decide(delivery, call_id, message, reign)

    async def _tell_lost(self, recipe: Recipe) -> None:
        """Tell the end of what a dead worker had, before the recipe goes on, which alone can tell it again.

        A former placer may have told it already; the event has the id of the life, so that it is the same one.
        """
        reason = EndReason.CRASH_LOOP if _in_a_crash_loop(recipe) else EndReason.WORKER_GONE
        told = recipe.revision <= self._presence.told_of(recipe.worker_id)
        self._reporter.lost(recipe, reason, told=told)
        await self._reporter.settled()

    def _deadly(self, delivery: Delivery, call_id: CallId) -> ToDeadLetters:
        problem = f"{MAX_DEATHS} workers have died with this message"
        log.error("placer.deadly", call_id=call_id, type=delivery.type)
        return ToDeadLetters("crash_loop", problem, failed(Internal(problem)))

    async def _buried(self, delivery: Delivery, call_id: CallId, reign: _Reign) -> WorkerId | Forward | None:
        """Whose inbox gave the message up: nobody's, a living worker's (it goes back), or a dead one's (unbound)."""
        worker = self._given_up_by(delivery)
        if worker is None:
            return None
        late = {headers.LATE: True}
        if await self._presence.lives(worker):
            return self._to_inbox(worker, call_id, delivery.message, late)
        log.info("placer.buries", call_id=call_id, worker_id=worker)
        await self._unbind(call_id, worker, reign)
        # That takes its time where a worker had many calls. One that came back before it was done has reported, and
        # may have found that the call still led there; one that comes back later finds that it does not.
        await self._presence.heard_out()
        if self._presence.alive(worker):
            log.info("placer.revives", call_id=call_id, worker_id=worker)
            return await self._bind(call_id, worker, delivery.message, self._presence.place(worker, ()), reign, late)
        owner, _ = self._placements.get(call_id) or (None, 0)
        if owner == worker:
            self._placements.drop(call_id)
        return worker

    async def _disowned(self, given: Headers, call_id: CallId, reign: _Reign) -> None:
        """A worker says that the call is not its own: believe it, and see that nothing more leads there."""
        returned = given.get(headers.RETURNED) or given.get(headers.REFUSED)
        if returned is None:
            return
        worker = WorkerId(str(returned))
        owner, number = self._placements.get(call_id) or (None, 0)
        if owner == worker:
            if headers.RETURNED in given and int(given.get(headers.RETURNS, 0)) < headers.FOR_GOOD:
                return  # it may have come through the binding before that which was placed
            if given.get(headers.DISOWNED, "") not in ("", self._named(number)):
                return  # the call has been placed there again since
            self._placements.drop(call_id)
        await self._unbind(call_id, worker, reign)

    async def _unbind(self, call_id: CallId, worker: WorkerId, reign: _Reign) -> None:
        await reign.channel.unbind(Binding(self._names.sessions, self._names.inbox(worker), routing_key(call_id)))

    def _given_up_by(self, delivery: Delivery) -> WorkerId | None:
        given = delivery.message.headers
        deaths = given.get("x-death")
        for death in deaths if isinstance(deaths, list) else ():
            queue = death.get("queue") if isinstance(death, dict) else None
            if isinstance(queue, str) and (worker := self._names.worker_of_inbox(queue)) is not None:
                return worker
        return WorkerId(str(given[headers.ORPHAN_OF])) if headers.ORPHAN_OF in given else None

    def _named(self, number: int) -> str:
        return f"{self._worker_id}/{number}"

    def _to_inbox(self, worker: WorkerId, call_id: CallId, message: Message, marks: Headers | None = None) -> Forward:
        onward = forwarding.onward(message, {CALL_HEADER: call_id, **(marks or {})})
        return Forward("", self._names.inbox(worker), onward)

    def _resend(self, delivery: Delivery, call_id: CallId, orphan_of: WorkerId | None = None) -> Forward:
        orphaned = {headers.LATE: True, headers.ORPHAN_OF: orphan_of} if orphan_of is not None else {}
        message = forwarding.onward(delivery.message, {headers.RESENT: True} | orphaned)
        if delivery.type in _STARTS:  # its wait for room began with the placer that had it first
            message = message.with_headers(
                {headers.ADMISSION: headers.milliseconds(self._admitted_until(message.headers))}
            )
        return Forward(self._names.sessions, routing_key(call_id), message, what="resent")

    # What becomes of it, when it is nobody's?

    async def _decide(self, delivery: Delivery, call_id: CallId, message: Addressed, reign: _Reign) -> Outcome:
        ended = self._endings.bar(call_id, delivery.message.timestamp)
        try:
            match message:
                case CallStarted() | CallProgress():
                    if ended:
                        return Done(succeeded({"sessions": []}), what="ended_before")
                    wanted = wanted_by(message, plan(message, self._configured.routes, self._configured.services))
                    if not wanted:
                        return Done(succeeded({"sessions": []}), what="no_route")
                    return await self._admit(delivery, call_id, wanted, reign)
                case SessionCreate(session_id=session_id, service_name=service, metadata=metadata):
                    check_deadline(delivery, message)
                    self._check_service(message)
                    if ended and headers.DEATHS in delivery.message.headers:
                        raise SessionNotFound(f"the call of {session_id!r} has ended", session_id=session_id)
                    self._endings.lift(call_id)
                    return await self._admit(
                        delivery, call_id, [Wanted(session_id, service, metadata=metadata or {})], reign
                    )
                case MayOpen(opens=service) if service is not None and not ended:
                    self._check_service(message)
                    wanted = [Wanted(message.session_id, service)]
                    return await self._admit(delivery, call_id, wanted, reign, message.timeout)
                case CallEnded():
                    return await self._end(delivery, call_id)
                case SessionClose():
                    return Done(succeeded(CloseResult(closed=False, sessions=[]).model_dump()))
                case Recipe():
                    return await self._restore(delivery, call_id, message, reign, ended=ended)
                case OwnerCheck(worker_id=asker):
                    return await self._confirm_owner(delivery, call_id, asker, reign, ended=ended)
                case ToolsCancel() if headers.RESENT in delivery.message.headers:
                    return Done(succeeded({"cancelled": False}))
                case (
                    SessionGet()
                    | SessionTouch()
                    | SessionDescribe()
                    | ToolsCall()
                    | ToolsCancel()
                    | InputAnswer()
                    | ToolsList()
                    | ResourcesList()
                    | ResourcesRead()
                    | PromptsList()
                    | PromptsGet()
                    | ResourcesSubscribe()
                    | ResourcesUnsubscribe()
                    | CompletionComplete()
                    | LoggingLevel()
                ):
                    if headers.RESENT not in delivery.message.headers:
                        return self._resend(delivery, call_id)  # its owner may not have bound its requests queue yet
                    raise SessionNotFound(f"there is no session {message.session_id!r}", session_id=message.session_id)
                case _:
                    assert_never(message)
        except SessionsError as error:
            return Done(failed(error))

    def _check_service(self, request: SessionCreate | MayOpen) -> None:
        service = request.service_name
        # Another worker may be configured for a service that this one does not know, or has disabled.
        if service is not None and not self._presence.offers(service):
            self._configured.service(service)

    def _admitted_until(self, given: Headers) -> float:
        """Until when (s since the epoch) a start may wait for room; whoever saw it first has said so."""
        longest = time.time() + self._configured.timings.admission_wait
        return min(longest, float(given.get(headers.ADMISSION, math.inf)) / 1000)

    async def _admit(
        self,
        delivery: Delivery,
        call_id: CallId,
        wanted: list[Wanted],
        reign: _Reign,
        timeout: float | None = None,
    ) -> Outcome:
        services = tuple(one.service_name for one in wanted)
        given = delivery.message.headers
        until = self._admitted_until(given)
        await self._presence.refreshed()
        now = time.time()
        without = {WorkerId(str(given[headers.REFUSED]))} if headers.REFUSED in given else set()
        if until <= now:  # who has just become the placer hears the others, before it says that nobody has room
            await self._presence.has_listened(ROLL_CALL)
        loop_until = asyncio.get_running_loop().time() + until - now
        # The wait for room is part of the caller's timeout.
        deadline = {} if timeout is None else {headers.DEADLINE: headers.milliseconds(now + timeout)}
        try:
            if without and until <= now:
                raise Capacity("every worker is full; the room that there seemed to be was taken")
            worker, number = await self._admission.admit(services, until=loop_until, without=without)
        except LimitReached as error:
            partly = [one for one in wanted if self._presence.choose((one.service_name,), without)]
            if 0 < len(partly) < len(wanted):
                # The owner rejects what it cannot open.
                return await self._admit(delivery, call_id, partly, reign, timeout)
            for one in wanted:
                self._reporter.rejected(call_id, one.session_id, one.service_name, error, one.metadata)
            raise
        marks = {headers.ADMISSION: headers.milliseconds(until)} | deadline
        return await self._bind(call_id, worker, delivery.message, number, reign, marks)

    async def _bind(
        self, call_id: CallId, worker: WorkerId, message: Message, number: int, reign: _Reign, marks: Headers
    ) -> Forward:
        await reign.channel.bind(Binding(self._names.sessions, self._names.inbox(worker), routing_key(call_id)))
        if self._reign is not reign:
            raise BrokerUnavailable("this worker is no longer the placer")
        self._placements.set(call_id, (worker, number))
        forward = self._to_inbox(worker, call_id, message)
        placed = forward.message.with_headers({headers.PLACEMENT: self._named(number)} | marks)
        return Forward(forward.exchange, forward.routing_key, placed, what="placed")

    async def _end(self, delivery: Delivery, call_id: CallId) -> Outcome:
        if headers.RESENT not in delivery.message.headers and call_id not in self._endings:
            await asyncio.sleep(REORDER)
            if self._lanes.waiting(call_id) & _STARTS:
                return self._resend(delivery, call_id)  # behind the start, which is placed next
        self._endings.note(call_id)
        return Done(succeeded(EndResult(closed=[]).model_dump()), what="tombstone")

    async def _restore(
        self, delivery: Delivery, call_id: CallId, recipe: Recipe, reign: _Reign, *, ended: bool
    ) -> Outcome:
        wanted = [
            Wanted(one.session_id, one.service_name, metadata=one.metadata)
            for one in recipe.sessions
            if self._configured.restores(one.service_name)
        ]
        if ended or not wanted or (_in_a_crash_loop(recipe) and headers.DEATHS in delivery.message.headers):
            return Done(what="not_restored")
        return await self._admit(delivery, call_id, wanted, reign)

    async def _confirm_owner(
        self, delivery: Delivery, call_id: CallId, asker: WorkerId, reign: _Reign, *, ended: bool
    ) -> Outcome:
        if ended:
            return Done(succeeded({"call_id": call_id, "ended": True}))
        if not self._presence.alive(asker):
            return Done(what="asker_gone")
        number = self._presence.place(asker, ())
        return await self._bind(call_id, asker, delivery.message, number, reign, {})


def _in_a_crash_loop(recipe: Recipe) -> bool:
    """Whether the worker that has just died with these sessions was one too many; see ``holdings.LIVED``."""
    return max((one.restores for one in recipe.sessions), default=0) + 1 >= MAX_DEATHS
