"""What changes a call's life: opening, closing, ending, restoring. Everything here runs on the call's lane."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import assert_never

import structlog
from pydantic_core import to_json

from consumer.broker.errors import BrokerError
from consumer.broker.message import Delivery
from consumer.broker.outcome import Done, Outcome
from consumer.calls.context import Context, Starter, TakeBack, ToolProcess
from consumer.calls.events import session_info
from consumer.calls.messages.deadlines import check_deadline
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.ownership.kept_metadata import BESIDE_METADATA, KeptMetadata, weight_of
from consumer.calls.ownership.opening import Opening
from consumer.calls.ownership.owned_calls import Holdings
from consumer.calls.ownership.recovery import GONE_ASTRAY, Books
from consumer.calls.ownership.ringing import Ringer
from consumer.calls.requests.binding_text import below_telephony
from consumer.calls.routes import CALL_KEY, plan
from consumer.calls.wanted import Wanted, wanted_by
from consumer.concurrency.keyed_queues import KeyedQueues
from consumer.sessions import SessionManager
from schemas import headers
from schemas.base import Json
from schemas.calls import CallEvent
from schemas.errors import InvalidMessage, LimitReached, SessionNotFound, SessionsError
from schemas.events import EndReason
from schemas.ids import SessionId, session_id_of
from schemas.internal import OwnerCheck, Recipe
from schemas.replies import CloseResult, EndResult, succeeded
from schemas.requests import CallEnded, CallProgress, CallStarted, Lifecycle, SessionClose, SessionCreate

log = structlog.get_logger(__name__)


class Changes:
    """Carries out what changes the calls that a worker holds."""

    def __init__(
        self,
        context: Context,
        sessions: SessionManager[ToolProcess],
        start: Starter,
        take_back: TakeBack,
        *,
        holdings: Holdings,
        books: Books,
        lanes: KeyedQueues,
    ) -> None:
        self._context = context
        self._sessions = sessions
        self.kept = KeptMetadata(context.bounds)
        self._opening = Opening(context, sessions, start, self.kept)
        self._ringer = Ringer(context, sessions, start, take_back)
        self._holdings = holdings
        self._books = books
        self._lanes = lanes

    async def carry_out(self, delivery: Delivery, call: OwnedCall, message: Lifecycle | Recipe | OwnerCheck) -> Outcome:
        """Do what ``message`` says; raises the errors that its sender is to be told."""
        match message:
            case SessionCreate():
                return await self._create(delivery, call, message)
            case SessionClose(session_id=session_id):
                closed = await self._close(call, session_id)
                return Done(succeeded(CloseResult(closed=bool(closed), sessions=closed).model_dump()))
            case CallStarted() | CallProgress():
                return await self._start(call, message)
            case CallEnded():
                closed = await self._end(call)
                return Done(succeeded(EndResult(closed=closed).model_dump()))
            case Recipe():
                return await self._restore(call, message, died=headers.DEATHS in delivery.message.headers)
            case OwnerCheck(worker_id=asker) if asker == self._context.worker_id:
                await self._holdings.bind_requests(call)
                # Still ours. After a new link the broker counts one delivery more of the recipe: write a new one.
                was_away, call.unchecked = call.unchecked, False
                call.dirty = call.dirty or (was_away and bool(call.sessions))
                if call.may_tell:
                    call.tell_ends()
                call.checked_at = asyncio.get_running_loop().time()
                return Done(what="still_owner", routine=not was_away)
            case OwnerCheck():
                return Done(succeeded({"call_id": call.call_id, "owner": self._context.worker_id}))
            case _:
                assert_never(message)

    async def _create(self, delivery: Delivery, call: OwnedCall, request: SessionCreate) -> Outcome:
        check_deadline(delivery, request)
        self._context.service(request.service_name)
        again = call.opened_by.get(request.session_id) == delivery.message.message_id != ""
        late = call.ended is not None and headers.LATE in delivery.message.headers
        if late or (again and request.session_id not in call.sessions):  # what it asked for has been, and is over
            raise SessionNotFound(f"session {request.session_id!r} has ended", session_id=request.session_id)
        metadata = request.metadata or {}
        if CALL_KEY in metadata:
            raise InvalidMessage(f"session.create: metadata.{CALL_KEY}: is kept for the call event; choose another key")
        before = call.sessions.get(request.session_id)
        session = await self.open_one(
            call,
            Wanted(request.session_id, request.service_name, request.timeout, metadata),
            if_exists="keep" if again else request.if_exists,
            fails_alone=True,
        )
        call.opened_by = {request.session_id: delivery.message.message_id} | {
            known: by for known, by in call.opened_by.items() if known in call.sessions
        }
        if session is not before:
            (call.undecided.add if request.timeout is None else call.undecided.discard)(request.session_id)
        call.dirty = True
        self._context.endings.lift(call.call_id)
        if call.ended is not None:  # an explicit command of somebody who knows better lifts the tombstone
            call.ended.cancel()
            call.ended = None
        return Done(succeeded(session_info(self._context.worker_id, session)))

    async def open_one(
        self, call: OwnedCall, wanted: Wanted, *, if_exists: str = "replace", fails_alone: bool = False
    ) -> CallSession:
        """Open one session, or raise why not; ``fails_alone``: a limit is nobody's business but the requester's.

        It gets what the call's start gives to all its sessions, if that has come.
        """
        wanted = replace(wanted, metadata=self._of_call(call, wanted.metadata))
        (result,) = await self._open(call, [wanted], if_exists=if_exists, fails_alone=fails_alone)
        if isinstance(result, SessionsError):
            raise result
        return result

    def _of_call(self, call: OwnedCall, metadata: Json) -> Json:
        told = next((one.metadata[CALL_KEY] for one in call.sessions.values() if CALL_KEY in one.metadata), None)
        if told is None or CALL_KEY in metadata:
            return metadata
        chosen = plan(CallEvent.model_validate_json(to_json(told)), self._context.routes, self._context.services)
        return below_telephony(metadata, {**chosen.metadata, CALL_KEY: told})

    async def _open(
        self, call: OwnedCall, wanted: list[Wanted], *, if_exists: str = "replace", fails_alone: bool = False
    ) -> list[CallSession | SessionsError]:
        # The bindings at both exchanges are there before anybody is told of the session.
        bound, results = await asyncio.gather(
            self._holdings.bind_requests(call),
            self._opening.open_all(call, wanted, if_exists=if_exists),
            return_exceptions=True,
        )
        if isinstance(results, BaseException):
            raise results
        if isinstance(bound, BrokerError):
            log.info("owner.binding_later", call_id=call.call_id, error=str(bound))
        elif isinstance(bound, BaseException):
            raise bound
        refusals = [result for result in results if isinstance(result, SessionsError)]
        if not call.sessions and refusals and all(isinstance(refusal, LimitReached) for refusal in refusals):
            raise refusals[0]
        for one, result in zip(wanted, results, strict=True):
            if isinstance(result, SessionsError) and not (fails_alone and isinstance(result, LimitReached)):
                too_large = weight_of(one.metadata) > self._context.bounds.max_metadata + BESIDE_METADATA
                metadata = {} if too_large else one.metadata
                self._context.reporter.rejected(call.call_id, one.session_id, one.service_name, result, metadata)
        return results

    async def _start(self, call: OwnedCall, event: CallStarted | CallProgress) -> Outcome:
        if call.ended is not None:
            return Done(succeeded({"sessions": []}), what="ended_before")
        for session in call.sessions.values():
            session.touch()
        begun = any(CALL_KEY in session.metadata for session in call.sessions.values())
        if begun or (call.rings is not None and not event.is_answered):
            return Done(succeeded({"sessions": sorted(call.sessions)}), what="touched")
        if call.rings is not None:
            wanted = call.rings.wanted
        else:
            chosen = plan(event, self._context.routes, self._context.services)
            wanted = wanted_by(event, chosen)
            if chosen.rings:
                call.rings = self._ringer.ring(wanted, partial(self._stop_ringing, call))
                await self._holdings.bind_requests(call)
                return Done(succeeded({"sessions": sorted(call.sessions)}), what="reserved")
        # Sessions that somebody opened ahead of the call's start become the start's: the order makes no difference.
        missing = [_under_free_id(call, one) for one in wanted if not self._adopted(call, one)]
        results = await self._open(call, missing, if_exists="keep")
        call.rings_no_more()
        call.undecided.clear()
        opened = [result.session_id for result in results if not isinstance(result, SessionsError)]
        if opened:
            what = "opened" if len(opened) == len(results) else "opened_in_part"
        else:
            what = "touched" if call.sessions and not results else "not_opened"
        return Done(succeeded({"sessions": sorted(call.sessions)}), what=what)

    def _adopted(self, call: OwnedCall, wanted: Wanted) -> bool:
        """Whether the call has a session on that service: then it is the start's, with the timeout of its route.

        The event and the route's metadata go before what was there, a timeout that somebody named stays.
        """
        session = next((one for one in call.sessions.values() if one.service_name == wanted.service_name), None)
        if session is None:
            return False
        if wanted.timeout is not None and session.session_id in call.undecided:
            self._sessions.set_timeout(session.session_id, wanted.timeout)
        metadata = below_telephony(session.metadata, wanted.metadata)
        weight = weight_of(metadata)
        if weight > self._context.bounds.max_metadata + BESIDE_METADATA:
            log.warning("session.metadata_too_large", session_id=session.session_id, size=weight)
        else:
            session.metadata = metadata
            self.kept.keep(session)
        call.dirty = True
        return True

    def _stop_ringing(self, call: OwnedCall) -> None:
        call.rings_no_more()
        self._books.keep_later(call.call_id)

    async def _end(self, call: OwnedCall) -> list[SessionId]:
        self._context.endings.note(call.call_id)
        call.rings_no_more()
        if call.ended is None:
            self._entomb(call)
        return await self.close_all(call, EndReason.CALL_ENDED)

    def _entomb(self, call: OwnedCall) -> None:
        call.ended = asyncio.get_running_loop().call_later(
            self._context.timings.tombstone, self._lanes.submit, call.call_id, partial(self._bury, call)
        )

    async def _bury(self, call: OwnedCall) -> None:
        if call.untold_ends:  # it will be known whose they are to tell
            self._entomb(call)
        elif call.ended is not None and self._holdings.calls.get(call.call_id) is call:
            await self._holdings.release(call)

    async def _close(self, call: OwnedCall, session_id: str) -> list[SessionId]:
        if session_id == call.call_id:
            return await self.close_all(call, EndReason.REQUESTED)
        closed = await self._sessions.close_session(SessionId(session_id), EndReason.REQUESTED)
        return [SessionId(session_id)] if closed else []

    async def close_all(self, call: OwnedCall, reason: EndReason) -> list[SessionId]:
        """Close every session of the call; the ids of those that this closed."""
        sessions = list(call.sessions)
        closed = await asyncio.gather(*(self._sessions.close_session(one, reason) for one in sessions))
        return [session_id for session_id, did in zip(sessions, closed, strict=True) if did]

    async def _restore(self, call: OwnedCall, recipe: Recipe, *, died: bool) -> Outcome:
        if call.ended is not None or not call.is_news(recipe, within=self._context.presence.grace + GONE_ASTRAY):
            return Done(what="restore_not_needed")
        call.restores = max((one.restores for one in recipe.sessions), default=0) + died
        call.restored_at = asyncio.get_running_loop().time()
        call.restored_from = recipe.worker_id, recipe.revision
        wanted = [
            Wanted(
                one.session_id, one.service_name, one.timeout, one.metadata, restored=True, created_at=one.created_at
            )
            for one in recipe.sessions
            if one.session_id not in call.had
            and (service := self._context.services.get(one.service_name))
            and service.enabled
            and service.restore
        ]
        await self._open(call, wanted, if_exists="keep")
        return Done(what="restored" if wanted else "restore_not_needed")


def _under_free_id(call: OwnedCall, wanted: Wanted) -> Wanted:
    if wanted.session_id not in call.sessions:
        return wanted
    return replace(wanted, session_id=session_id_of(call.call_id, wanted.service_name, first=False))
