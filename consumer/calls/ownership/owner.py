"""The owner: lives the calls that are bound to this worker's inbox.

What changes a call's life is handled on the call's lane, one after the other, and acknowledged when its effect is
safe; what uses its sessions waits for the lane and then runs beside everything else.
"""

import asyncio
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

import structlog

from consumer.broker.message import Delivery
from consumer.broker.outcome import Done, Forward, Hold, Outcome, decided, told_about
from consumer.calls.context import Context, Starter, TakeBack, ToolProcess
from consumer.calls.messages import forwarding
from consumer.calls.messages.deadlines import Heartbeat, deadline_of, too_late
from consumer.calls.messages.parsing import Addressed, about, read_addressed, refused
from consumer.calls.news import News
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.ownership.early_messages import Early
from consumer.calls.ownership.handover import Leaving
from consumer.calls.ownership.lifecycle import Changes
from consumer.calls.ownership.owned_calls import Holdings
from consumer.calls.ownership.recovery import Books
from consumer.calls.requests.in_flight import InFlight
from consumer.calls.requests.kept_calls import KeptCalls
from consumer.calls.requests.session_requests import Opening, Uses
from consumer.calls.requests.tool_calls import Asked, ToolCalls
from consumer.calls.wanted import Wanted
from consumer.concurrency.keyed_queues import KeyedQueues
from consumer.concurrency.task_set import Tasks
from consumer.observability import tracing
from consumer.sessions import SessionCreated, SessionEnded, SessionManager
from schemas import headers
from schemas.base import Json
from schemas.errors import Capacity, LimitReached, SessionDied, SessionExists, SessionNotFound, SessionsError
from schemas.events import EndReason
from schemas.ids import CallId, ServiceName, SessionId, WorkerId, routing_key, session_id_of
from schemas.internal import OwnerCheck, Recipe
from schemas.replies import Reply, failed, succeeded
from schemas.requests import (
    CallEnded,
    CallRequest,
    Lifecycle,
    MayOpen,
    SessionClose,
    ToolsCall,
    ToolsCancel,
    Use,
)

log = structlog.get_logger(__name__)

STOP_TIMEOUT = 5.0
"""What leaving keeps (s) of its time for stopping processes, when tool calls do not come to an end."""

DEFAULT_TIMEOUT = 30.0
"""How long (s) a tool call may take when neither its requester nor a service says so."""

MOST_PLACERS = 32
"""How many placers are remembered: there is one at a time, and each worker may have been it."""

DEATH_NOTICE = 5.0
"""How long (s) the session core may take to notice a death that a tool call has noticed."""


class Owner:
    """Takes deliveries of the inbox and of the requests queue; both accept every message type."""

    def __init__(
        self, context: Context, sessions: SessionManager[ToolProcess], start: Starter, take_back: TakeBack
    ) -> None:
        self._context = context
        self._in_flight = InFlight(context.bounds)
        self._news = News(context.reporter)
        self._kept = KeptCalls()
        self._tool_calls = ToolCalls(context, self._in_flight, self._kept)
        self._uses = Uses(context, self._tool_calls, self._in_flight, self._kept)
        self.heartbeat = Heartbeat()
        self._lanes = KeyedQueues("owner")
        self._tasks = Tasks()
        self._early = Early()
        self._leaving = False
        self.holdings = Holdings(context)
        self._books = Books(context, self.holdings, self._lanes)
        self._changes = Changes(
            context, sessions, start, take_back, holdings=self.holdings, books=self._books, lanes=self._lanes
        )
        self._books.over = partial(self.give_up, reason=EndReason.CALL_ENDED)
        self.session_ended = asyncio.Event()
        """Set with each end of a session."""
        self.placements: dict[WorkerId, int] = {}
        """The highest placement number seen of each placer, for our reports."""

    @property
    def tool_calls_in_flight(self) -> int:
        """How many tool calls MCP servers are busy with."""
        return self._tool_calls.in_flight

    def owns(self, call_id: CallId) -> bool:
        """Whether a call is this worker's."""
        return call_id in self.holdings.calls

    @property
    def told(self) -> int:
        """The highest revision of a recipe up to which the broker has everything that we have to tell."""
        return self._books.told

    # What the session core tells; synchronous, and in order.

    def on_session(self, event: SessionCreated[ToolProcess] | SessionEnded[ToolProcess]) -> None:
        """Note and report the beginning or the end of a session."""
        session = event.session
        call = self.holdings.calls.get(session.call_id)
        match event:
            case SessionCreated():
                self._context.figures.started()
                self._news.follow(session)
                if call is None:
                    self._context.reporter.created(session)
                else:
                    call.sessions[session.session_id] = session
                    call.had.add(session.session_id)
                    call.untold.append(session)
                    call.dirty = True
            case SessionEnded(reason=reason, exit=exit_):
                self._context.figures.ended()
                self._changes.kept.forget(session)
                details: Json = {"tools": session.record.summary()}
                if exit_ is not None:
                    details |= {"exit_code": exit_.exit_code, "signal": exit_.signal, "stderr": exit_.stderr}
                tell = self._context.reporter.ending(session, reason, details)
                if call is None:
                    tell()
                    return
                self.session_ended.set()
                self._books.note_end(call, session, tell)
                if self._leaving or call.may_tell:
                    call.tell_ends()
                if call.sessions.get(session.session_id) is session:
                    del call.sessions[session.session_id]
                    call.dirty = True
                    self._books.keep_later(session.call_id)

    # What the broker brings.

    def take(self, delivery: Delivery) -> None:
        """Take a delivery of the inbox or of the requests queue over."""
        try:
            call_id, message = read_addressed(delivery)
        except SessionsError as error:
            self._settle(delivery, decided(refused(error)))
            return
        if placement := delivery.message.headers.get(headers.PLACEMENT):
            self._note_placement(placement)
            self.holdings.own(call_id)
            self._hand_on(delivery, call_id, message)
            self._early.admit(call_id)
        elif call_id not in self.holdings.calls and delivery.exchange == self._context.names.sessions:
            # The binding is there before the message that was placed: what comes through it waits for that one.
            self._early.wait(call_id, partial(self._hand_on, delivery, call_id, message))
        else:
            self._hand_on(delivery, call_id, message)

    def _note_placement(self, placement: str) -> None:
        placer, _, number = placement.rpartition("/")
        highest = max(int(number), self.placements.pop(WorkerId(placer), 0))
        self.placements[WorkerId(placer)] = highest  # the last of them is who placed last
        if len(self.placements) > MOST_PLACERS:
            del self.placements[next(iter(self.placements))]

    def _hand_on(self, delivery: Delivery, call_id: CallId, message: Addressed) -> None:
        if isinstance(message, Recipe) and message.worker_id == self._context.worker_id:
            self._keep_recipe(delivery, message)
        elif isinstance(message, Use):
            self._settle(delivery, self._used(delivery, call_id, message))
        else:
            self._lanes.submit(call_id, partial(self._settled, delivery, call_id, message))

    def _keep_recipe(self, delivery: Delivery, recipe: Recipe) -> None:
        freed = self.holdings.recipe_arrived(delivery, recipe)
        if freed is not delivery:
            self._settle(delivery, decided(Hold()))
        if freed is not None:
            self._tasks.start(freed.ack(), "recipe-ack")
        self._books.recipe_is_back(recipe.call_id)

    def _settle(self, delivery: Delivery, deciding: Coroutine[Any, Any, Outcome]) -> None:
        self._tasks.start(self._settle_and_report(delivery, deciding), f"settle {delivery.type}")

    async def _settled(self, delivery: Delivery, call_id: CallId, message: Lifecycle | Recipe | OwnerCheck) -> None:
        await self._settle_and_report(delivery, self._changed(delivery, call_id, message))

    async def _settle_and_report(self, delivery: Delivery, deciding: Coroutine[Any, Any, Outcome]) -> None:
        """Settle a delivery, and report if it was placed here: the placer counts it until we say what came of it.

        A start that opens nothing changes no load, so nothing else would make a report.
        """
        await self._context.settler.settle(delivery, deciding)
        if headers.PLACEMENT in delivery.message.headers:
            self._context.presence.report_soon()

    def _not_mine(self, delivery: Delivery, call_id: CallId, mark: str = headers.RETURNED) -> Forward:
        given = delivery.message.headers
        returns = int(given.get(headers.RETURNS, 0)) + 1
        placement = given.get(headers.PLACEMENT) or given.get(headers.BELIEVED) or ""
        marks = {mark: self._context.worker_id, headers.RETURNS: returns, headers.DISOWNED: placement}
        message = forwarding.onward(delivery.message, marks)
        return Forward(self._context.names.unowned, routing_key(call_id), message, what="returned")

    # What uses a session.

    async def _used(self, delivery: Delivery, call_id: CallId, request: Use) -> Outcome:
        return told_about(await self._use(delivery, call_id, request), **about(request))

    async def _use(self, delivery: Delivery, call_id: CallId, request: Use) -> Outcome:
        try:
            with self._in_flight.held(len(delivery.message.body)):
                return await self._run(delivery, call_id, request)
        except Capacity as error:
            await delivery.ack()
            return Done(failed(error))

    async def _run(self, delivery: Delivery, call_id: CallId, request: Use) -> Outcome:
        deadline = deadline_of(delivery, self._timeout_of(call_id, request), self.heartbeat)
        if isinstance(request, ToolsCancel) and (cancelled := self._cancelled(call_id, request)) is not None:
            await delivery.ack()
            return Done(succeeded({"cancelled": cancelled}))  # also when the call waits for its turn on the lane
        if self._lanes.busy(call_id):
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._lanes.turn(call_id)
            except TimeoutError:
                await delivery.ack()
                return Done(failed(too_late(request)))
        await delivery.ack()  # from here on it is at most once, here or elsewhere
        call = self.holdings.calls.get(call_id)
        if call is None:
            return self._not_mine(delivery, call_id)
        if isinstance(request, ToolsCall):
            return await self._call_tool(Asked(request, delivery, deadline), call)
        if isinstance(request, ToolsCancel):
            return Done(succeeded({"cancelled": bool(self._cancelled(call_id, request))}))
        session = find(call, request)
        if session is None and isinstance(request, MayOpen) and request.opens is not None:
            return Done(await self._open_and_use(call, request, deadline))
        if session is None:
            return Done(failed(_no_session(request)))
        return Done(await self._uses.run(session, request, deadline - time.monotonic()))

    async def _open_and_use(self, call: OwnedCall, request: Opening, deadline: float) -> Reply:
        call.users += 1
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                session = await self._ensure(call, request, None)
            return await self._uses.run(session, request, deadline - time.monotonic())
        except TimeoutError:
            return failed(too_late(request))
        except SessionsError as error:
            return failed(error)
        finally:
            self._used_no_more(call)

    def _used_no_more(self, call: OwnedCall) -> None:
        call.users -= 1
        if not call.sessions:
            self._books.keep_later(call.call_id)

    def _cancelled(self, call_id: CallId, request: ToolsCancel) -> bool | None:
        """Whether a tool call was cancelled; None where no such call is known."""
        call = self.holdings.calls.get(call_id)
        if call is None:
            return None
        key = request.idempotency_key
        if request.leaves:
            return call.answers.leave(key)
        return (call.answers.cancel(key) or self._kept.cancel(call_id, key)) or None

    def _timeout_of(self, call_id: CallId, request: Use) -> float:
        call = self.holdings.calls.get(call_id)
        session = find(call, request) if call is not None else None
        name: ServiceName | None = getattr(request, "service_name", None)
        configured = self._context.services.get(name) if name is not None else None
        service = session.process.service if session is not None else configured
        timeout: float | None = getattr(request, "timeout", None)
        if timeout is None:
            return service.call_timeout if service is not None else DEFAULT_TIMEOUT
        known = [service] if service is not None else self._context.services.values()
        return min(timeout, max((one.longest_call for one in known), default=DEFAULT_TIMEOUT))

    async def _call_tool(self, asked: Asked, call: OwnedCall) -> Done:
        died: CallSession | None = None

        async def session() -> CallSession:
            nonlocal died
            if died is not None:  # asked for again: it died under the call
                await _wait_ended(died)
            try:
                async with asyncio.timeout(asked.deadline - time.monotonic()):
                    died = find(call, asked.request) or await self._ensure(call, asked.request, died)
            except TimeoutError:
                raise too_late(asked.request) from None
            return died

        call.users += 1
        try:
            answer = await call.answers.once(
                asked.key,
                asked.delivery.message.body,
                partial(self._tool_calls.answer, asked, session),
                partial(self._tool_calls.tell, asked),
            )
        except SessionsError as error:
            return Done(failed(error))
        else:
            what = "done" if answer.outcome == "ok" else answer.outcome
            service = {} if answer.service is None else {"service": answer.service}
            return Done(answer.body, what, about=service, code=answer.code)
        finally:
            self._used_no_more(call)

    async def _ensure(self, call: OwnedCall, request: MayOpen, died: CallSession | None) -> CallSession:
        """The session on the service that a request names; opened on the call's lane if need be.

        ``died`` is the one that was there and is to be replaced, for a call that may be repeated.
        """
        service = died.service_name if died is not None else request.opens
        if service is None or call.ended or self._leaving:
            raise _no_session(request)
        if died is not None:
            wanted = Wanted(died.session_id, service, died.timeout, died.metadata)
        else:
            taken = call.sessions.get(SessionId(request.session_id))
            if taken is not None and request.open == "alone":
                told = f"session {request.session_id!r} is on service {taken.service_name!r}, not {service!r}"
                raise SessionExists(told, session_id=request.session_id, service_name=taken.service_name)
            own = session_id_of(call.call_id, service, first=False) if taken is not None else request.session_id
            wanted = Wanted(SessionId(own), service, request.session_timeout, request.session_metadata or {})
        opened: asyncio.Future[CallSession] = asyncio.get_running_loop().create_future()

        async def open_it() -> None:
            try:
                if self.holdings.calls.get(call.call_id) is not call:
                    raise _no_session(request)
                found = find(call, request)
                if found is None:
                    found = await self._changes.open_one(call, wanted)
                    if died is None:
                        call.undecided.add(found.session_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, the requester's task raises it
                if not opened.done():
                    opened.set_exception(error)
            else:
                await self._books.keep_or_leave_it(call.call_id)
                if not opened.done():
                    opened.set_result(found)

        self._lanes.submit(call.call_id, tracing.carried(open_it))
        return await opened

    # What changes a call's life; on its lane.

    async def _changed(self, delivery: Delivery, call_id: CallId, message: Lifecycle | Recipe | OwnerCheck) -> Outcome:
        return told_about(await self._change(delivery, call_id, message), **about(message))

    async def _change(self, delivery: Delivery, call_id: CallId, message: Lifecycle | Recipe | OwnerCheck) -> Outcome:
        call = self.holdings.calls.get(call_id)
        if call is None or (self._leaving and not isinstance(message, CallEnded | SessionClose)):
            if call is not None and not call.sessions:
                await self.holdings.release(call)
            return self._not_mine(delivery, call_id)
        try:
            outcome = await self._changes.carry_out(delivery, call, message)
        except LimitReached as error:
            if call.sessions:
                outcome = Done(failed(error))
            else:  # the placer was mistaken about our room, or the call lingered here: it may know a better place
                await self.holdings.release(call)
                return self._not_mine(delivery, call_id, headers.REFUSED)
        except SessionsError as error:
            outcome = Done(failed(error))
        await self._books.keep(call_id)
        return outcome

    # The worker's life.

    def reattached(self) -> None:
        """After a new link: see what is still ours."""
        self._books.reattached()

    def give_up(self, call_id: CallId, reason: EndReason) -> None:
        """The call is no longer ours: another worker owns it (``SUPERSEDED``), or it ended while we were away."""
        call = self.holdings.calls.get(call_id)
        if call is not None:
            self._lanes.submit(call_id, partial(self._give_up, call, reason))

    async def _give_up(self, call: OwnedCall, reason: EndReason) -> None:
        await self._changes.close_all(call, reason)
        if call.given_back:
            log.info("owner.told_lost", call_id=call.call_id, sessions=len(call.untold_ends))
            self.holdings.leave_to_placer(call)
        await self.holdings.release(call)

    async def renew(self) -> None:
        """Look after the books; for ever."""
        await self._books.run()

    async def leave(self, hand_over: bool, timeout: float) -> bool:
        """Give every call away or close it; returns whether that was done within ``timeout`` seconds."""
        self._leaving = self._books.leaving = True
        until = asyncio.get_running_loop().time() + timeout - STOP_TIMEOUT
        leaving = Leaving(
            self._context, self.holdings, partial(self._changes.close_all, reason=EndReason.WORKER_SHUTDOWN)
        )
        for call in list(self.holdings.calls.values()):
            call.tell_ends()
            self._lanes.submit(call.call_id, partial(leaving.give_away, call, until=until, hand_over=hand_over))
        return await self._lanes.drain(timeout)

    async def stop(self, timeout: float) -> None:
        """Wait for what runs, then stop it."""
        self._early.stop()
        self._kept.stop()
        await self._tasks.drain(timeout)
        await self._lanes.abandon()
        await self._tasks.cancel()
        for call in self.holdings.calls.values():
            call.let_go()


async def _wait_ended(session: CallSession) -> None:
    """Wait until the session core has ended a session that a tool call found dead.

    Raises:
        SessionDied: it has not, and the next who asks may have more luck.
    """
    try:
        async with asyncio.timeout(DEATH_NOTICE):
            await session.wait_ended()
    except TimeoutError:
        died = f"session {session.session_id!r} does not answer any more, and has not been replaced yet; ask again"
        raise SessionDied(died, exit_code=None, signal=None, stderr="") from None


def _no_session(request: CallRequest) -> SessionNotFound:
    return SessionNotFound(f"there is no session {request.session_id!r}", session_id=request.session_id)


def find(call: OwnedCall, request: CallRequest) -> CallSession | None:
    """The session that a request means: by its id, or with a service name by the service within the call."""
    service: ServiceName | None = getattr(request, "service_name", None)
    session = call.sessions.get(SessionId(request.session_id))
    if service is None or (session is not None and session.service_name == service):
        return session
    return next((one for one in call.sessions.values() if one.service_name == service), None)


__all__ = ["Addressed", "Owner", "find"]
