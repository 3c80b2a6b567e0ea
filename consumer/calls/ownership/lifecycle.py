"""Handles the messages that change a call's life: start, end, commands, recipes. All of it runs on the call's lane."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import assert_never

from pydantic_core import to_json

from consumer.broker.message import Delivery, Headers
from consumer.broker.outcome import Done, Outcome
from consumer.calls.cluster.ended_calls import Endings, OpenedBy
from consumer.calls.context import Configured
from consumer.calls.events import session_info
from consumer.calls.messages.deadlines import check_deadline, too_late
from consumer.calls.messages.parsing import no_session
from consumer.calls.messages.recipes import opened_by
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.ownership.closing import Closing
from consumer.calls.ownership.opening import Opening
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.calls.ownership.recovery import Recovery
from consumer.calls.ownership.ringing import Ringer
from consumer.calls.ownership.upkeep import MISSING_AFTER
from consumer.calls.requests.binding_text import below_telephony
from consumer.calls.requests.session_for import find, missing
from consumer.calls.routes import CALL_KEY, plan
from consumer.calls.wanted import Wanted, wanted_by
from consumer.concurrency.keyed_queues import KeyedQueues
from consumer.observability import tracing
from consumer.sessions import IfExists
from schemas import headers
from schemas.base import Json
from schemas.calls import CallEvent
from schemas.errors import InvalidMessage, SessionExists, SessionNotFound, SessionsError
from schemas.ids import SessionId, WorkerId, session_id_of
from schemas.internal import OwnerAnswer, OwnerCheck, Recipe
from schemas.replies import CloseResult, EndResult, succeeded
from schemas.requests import (
    CallEnded,
    CallProgress,
    CallStarted,
    Lifecycle,
    MayOpen,
    SessionClose,
    SessionCreate,
)


class CallLifecycle:
    """Carries out the messages that open, change, restore or end the calls that a worker owns."""

    def __init__(
        self,
        owned_calls: OwnedCalls,
        opening: Opening,
        closing: Closing,
        recovery: Recovery,
        ringer: Ringer,
        lanes: KeyedQueues,
        *,
        worker_id: WorkerId,
        endings: Endings,
        configured: Configured,
        grace: float,
    ) -> None:
        self._owned_calls = owned_calls
        self._opening = opening
        self._closing = closing
        self._recovery = recovery
        self._ringer = ringer
        self._lanes = lanes
        self._worker_id = worker_id
        self._endings = endings
        self._configured = configured
        self._recipes_come_within = grace + MISSING_AFTER

    async def carry_out(self, delivery: Delivery, call: OwnedCall, message: Lifecycle | Recipe | OwnerCheck) -> Outcome:
        """Execute ``message``. Raises the errors that its sender gets as a reply."""
        match message:
            case SessionCreate():
                try:
                    self._check_create(delivery, call, message)
                except SessionsError as error:
                    if not delivery.expects_answers and message.session_id not in call.sessions:
                        self._opening.unanswered(call, message, error)
                    raise
                return await self._create(delivery, call, message)
            case SessionClose(session_id=session_id):
                closed = await self._closing.close_by_command(call, SessionId(session_id))
                result = CloseResult(closed=bool(closed), sessions=closed)
                return Done(succeeded(result.model_dump()), what="done" if closed else "no_session")
            case CallStarted() | CallProgress():
                return await self._start(call, message, sent=delivery.message.timestamp)
            case CallEnded():
                closed = await self._closing.end(call)
                return Done(succeeded(EndResult(closed=closed).model_dump()))
            case Recipe():
                return await self._restore(call, message, delivery.message.headers)
            case OwnerCheck(worker_id=asker) if asker == self._worker_id:
                if not self._owned_calls.asks(delivery):
                    return Done(what="asked_before", routine=True)
                was_in_doubt = await self._recovery.still_ours(call)
                return Done(what="still_owner", routine=not was_in_doubt)
            case OwnerCheck():
                call.check.told.add(delivery.message.reply_to or "")
                answer = OwnerAnswer(call_id=call.call_id, owner=self._worker_id, link=self._owned_calls.answers_to)
                return Done(succeeded(answer.model_dump(exclude_defaults=True)))
            case _:
                assert_never(message)

    # Commands.

    def _check_create(self, delivery: Delivery, call: OwnedCall, request: SessionCreate) -> None:
        check_deadline(delivery, request)
        self._configured.service(request.service_name)
        again = _is_repeated(delivery, call, request)
        is_over = again and request.session_id not in call.sessions  # what it asked for has been
        if is_over or self._came_behind_the_end(delivery, call):
            raise SessionNotFound(f"session {request.session_id!r} has ended", session_id=request.session_id)
        if CALL_KEY in (request.metadata or {}):
            raise InvalidMessage(
                f"session.create: metadata.{CALL_KEY}: is reserved for the call event; choose another key",
                faults=[{"field": f"metadata.{CALL_KEY}", "problem": "is reserved for the call event"}],
            )
        before = call.sessions.get(request.session_id)
        if before is not None and not again and request.if_exists == "keep":
            _check_same_service(before, request)

    def _came_behind_the_end(self, delivery: Delivery, call: OwnedCall) -> bool:
        """Return whether a request was sent before the call's end, and held back until then."""
        sent = delivery.message.timestamp
        older = sent is None or self._endings.came_behind(call.call_id, sent)
        return call.tenure.has_ended and _was_held_back(delivery) and older

    async def _create(self, delivery: Delivery, call: OwnedCall, request: SessionCreate) -> Outcome:
        again = _is_repeated(delivery, call, request)
        before = call.sessions.get(request.session_id)
        session = await self._open_one(
            call,
            Wanted(request.session_id, request.service_name, request.timeout, request.metadata or {}),
            if_exists="keep" if again else request.if_exists,
            fails_alone=delivery.expects_answers,
        )
        call.opened_by = {request.session_id: delivery.message.message_id} | {
            known: by for known, by in call.opened_by.items() if known in call.sessions
        }
        if session is not before:
            (call.undecided.add if request.timeout is None else call.undecided.discard)(request.session_id)
        call.recipe.outdate()
        # An explicit request overrides the end, unless it is older and came late.
        sent = delivery.message.timestamp if _was_held_back(delivery) else None
        self._closing.lift_tombstone(call, sent or datetime.now(UTC))
        return Done(succeeded(session_info(self._worker_id, session)))

    async def open_for(
        self, call: OwnedCall, request: MayOpen, wanted: Wanted, deadline: float, *, undecided: bool
    ) -> CallSession:
        """Return the session that a request means, or open the ``wanted`` one on the call's lane.

        See ``requests.session_for.SessionOpener``.
        """
        if self._owned_calls.leaving:
            raise no_session(request)
        work = partial(self._find_or_open, call, request, wanted, deadline, undecided=undecided)
        return await self._lanes.run(call.call_id, tracing.carried(work))

    async def _find_or_open(
        self, call: OwnedCall, request: MayOpen, wanted: Wanted, deadline: float, *, undecided: bool
    ) -> CallSession:
        if not self._owned_calls.is_ours(call):
            raise no_session(request)
        session = find(call, request)
        if session is None:
            if call.tenure.has_ended:  # while this waited for its turn
                raise missing(call, request)
            if deadline <= time.monotonic():  # nobody would use it
                raise too_late(request)
            self._configured.service(wanted.service_name)  # a wrong name is a wrong request, and no failed start
            session = await self._open_one(call, wanted)
            if undecided:
                call.undecided.add(session.session_id)
        await self._recovery.keep_or_retry(call.call_id)
        return session

    async def _open_one(
        self, call: OwnedCall, wanted: Wanted, *, if_exists: IfExists = "replace", fails_alone: bool = False
    ) -> CallSession:
        """Open one session, or raise the reason. ``fails_alone``: see ``Opening.open_all``.

        If the call's start has arrived, the session gets the metadata that the start gives to all sessions of the call.
        """
        wanted = replace(wanted, metadata=self._of_call(call, wanted.metadata))
        (result,) = await self._opening.open_all(call, [wanted], if_exists=if_exists, fails_alone=fails_alone)
        if isinstance(result, SessionsError):
            raise result
        return result

    def _of_call(self, call: OwnedCall, metadata: Json) -> Json:
        told = next((one.metadata[CALL_KEY] for one in call.sessions.values() if CALL_KEY in one.metadata), None)
        if told is None or CALL_KEY in metadata:
            return metadata
        event = CallEvent.model_validate_json(to_json(told))
        chosen = plan(event, self._configured.routes, self._configured.services)
        return below_telephony(metadata, {**chosen.metadata, CALL_KEY: told})

    # The start of the call.

    async def _start(self, call: OwnedCall, event: CallStarted | CallProgress, *, sent: datetime | None) -> Outcome:
        # The placer may have sent it on before it heard of the end.
        if call.tenure.has_ended or self._endings.bars_start(call.call_id, sent):
            return Done(succeeded({"sessions": []}), what="ended_before")
        if not call.sessions and sent is not None:
            call.opened = OpenedBy(sent)
        for session in call.sessions.values():
            session.touch()
        ringing = call.tenure.ringing
        begun = any(CALL_KEY in session.metadata for session in call.sessions.values())
        if begun or (ringing is not None and not event.is_answered):
            return Done(succeeded({"sessions": sorted(call.sessions)}), what="touched")
        if ringing is not None:
            wanted = ringing.wanted
        else:
            chosen = plan(event, self._configured.routes, self._configured.services)
            wanted = wanted_by(event, chosen)
            if chosen.rings:
                return await self._ring(call, wanted)
        # Sessions that somebody opened ahead of the call's start become the start's: the order makes no difference.
        absent = [_under_free_id(call, one) for one in wanted if not self._opening.adopt(call, one)]
        results = await self._opening.open_all(call, absent, if_exists="keep")
        call.tenure.stop_ringing()
        call.undecided.clear()
        opened = [result.session_id for result in results if not isinstance(result, SessionsError)]
        if opened:
            what = "opened" if len(opened) == len(results) else "opened_in_part"
        else:
            what = "touched" if call.sessions and not results else "not_opened"
        return Done(succeeded({"sessions": sorted(call.sessions)}), what=what)

    async def _ring(self, call: OwnedCall, wanted: list[Wanted]) -> Outcome:
        call.tenure.ring(self._ringer.ring(wanted, partial(self._stop_ringing, call)))
        await self._owned_calls.bind_requests(call)
        return Done(succeeded({"sessions": sorted(call.sessions)}), what="reserved")

    def _stop_ringing(self, call: OwnedCall) -> None:
        call.tenure.stop_ringing()
        self._recovery.keep_later(call.call_id)

    # A recipe of another worker.

    async def _restore(self, call: OwnedCall, recipe: Recipe, given: Headers) -> Outcome:
        if call.tenure.has_ended or not call.is_news(recipe, within=self._recipes_come_within):
            return Done(what="restore_not_needed")
        if not call.sessions and (opened := opened_by(recipe, given)).sent is not None:
            call.opened = opened
        call.restoration.restored(recipe, asyncio.get_running_loop().time(), died=headers.DEATHS in given)
        wanted = [
            Wanted(
                one.session_id, one.service_name, one.timeout, one.metadata, restored=True, created_at=one.created_at
            )
            for one in recipe.sessions
            if one.session_id not in call.had
            and self._configured.restores(one.service_name)
            and not self._endings.was_closed(one.session_id, one.created_at)
        ]
        if not wanted:
            return Done(what="restore_not_needed")
        results = await self._opening.open_all(call, wanted, if_exists="keep")
        none_opened = all(isinstance(result, SessionsError) for result in results)
        return Done(what="not_restored" if none_opened else "restored")


def _was_held_back(delivery: Delivery) -> bool:
    """Return whether an inbox has given the message up. What was sent later may have arrived before it."""
    return bool({headers.LATE, headers.DEATHS} & delivery.message.headers.keys())


def _is_repeated(delivery: Delivery, call: OwnedCall, request: SessionCreate) -> bool:
    """Return whether this very message has opened the session before, and has come again."""
    return call.opened_by.get(request.session_id) == delivery.message.message_id != ""


def _check_same_service(session: CallSession, request: SessionCreate) -> None:
    """Refuse to keep a session on another service than the requested one.

    Raises:
        SessionExists: it is on another service.
    """
    if session.service_name != request.service_name:
        raise SessionExists(
            f"session {session.session_id!r} is on service {session.service_name!r}, not {request.service_name!r}: "
            "name that service, or another session_id",
            session_id=session.session_id,
            service_name=session.service_name,
        )


def _under_free_id(call: OwnedCall, wanted: Wanted) -> Wanted:
    if wanted.session_id not in call.sessions:
        return wanted
    return replace(wanted, session_id=session_id_of(call.call_id, wanted.service_name, first=False))
