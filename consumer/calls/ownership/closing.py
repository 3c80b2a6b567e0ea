"""Closing the sessions of a call: at its end, when its worker leaves, or when another worker owns it."""

import asyncio
from datetime import datetime
from functools import partial

import structlog

from consumer.broker.errors import BrokerError
from consumer.calls.cluster.ended_calls import Endings, OpenedBy
from consumer.calls.context import Configured, ToolProcess
from consumer.calls.owned_call import OwnedCall
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.concurrency.keyed_queues import KeyedQueues
from consumer.sessions import SessionManager
from schemas.events import EndReason
from schemas.ids import CallId, SessionId, WorkerId

log = structlog.get_logger(__name__)


class Closing:
    """Closes sessions of calls, ends calls, and releases those that another worker owns."""

    def __init__(
        self,
        worker_id: WorkerId,
        sessions: SessionManager[ToolProcess],
        owned_calls: OwnedCalls,
        lanes: KeyedQueues,
        endings: Endings,
        configured: Configured,
    ) -> None:
        self._worker_id = worker_id
        self._sessions = sessions
        self._owned_calls = owned_calls
        self._lanes = lanes
        self._endings = endings
        self._configured = configured

    async def close(self, session_id: SessionId, reason: EndReason) -> bool:
        """Close one session. Return whether this request closed it."""
        return await self._sessions.close_session(session_id, reason)

    async def close_all(self, call: OwnedCall, reason: EndReason) -> list[SessionId]:
        """Close every session of the call. Return the ids of those that were closed."""
        sessions = list(call.sessions)
        closed = await asyncio.gather(*(self.close(one, reason) for one in sessions))
        return [session_id for session_id, did in zip(sessions, closed, strict=True) if did]

    async def close_by_command(self, call: OwnedCall, session_id: SessionId) -> list[SessionId]:
        """Close a session for a request, or all with the call's id. All workers remember it. Return their ids."""
        every = session_id == SessionId(call.call_id)
        closed = [one for one in call.sessions.values() if every or one.session_id == session_id]
        self._endings.note_closed(session_id, [one.created_at for one in closed])
        if every:
            return await self.close_all(call, EndReason.REQUESTED)
        return [session_id] if await self.close(session_id, EndReason.REQUESTED) else []

    def closed_elsewhere(self, call_id: CallId) -> None:
        """Close what another worker has closed by command, if this worker has it: it was away, or has restored it."""
        if (call := self._owned_calls.calls.get(call_id)) is not None:
            self._lanes.submit(call_id, partial(self.close_again, call))

    async def close_again(self, call: OwnedCall) -> None:
        """Close the sessions that were closed by command on another worker."""
        covered = [one for one in call.sessions.values() if call.check.covers(one)]
        closed = [one.session_id for one in covered if self._endings.was_closed(one.session_id, one.created_at)]
        await asyncio.gather(*(self.close(one, EndReason.REQUESTED) for one in closed))

    # The end of the call.

    async def end(self, call: OwnedCall) -> list[SessionId]:
        """Close the sessions of an ended call, and refuse later messages. Return their ids."""
        self._endings.note(call.call_id)
        call.hand_over = None
        if not call.tenure.has_ended:
            self._start_tombstone(call)
        return await self.close_all(call, EndReason.CALL_ENDED)

    def lift_tombstone(self, call: OwnedCall, sent: datetime) -> None:
        """Open the call again, if it has ended, for an explicit request of this time."""
        self._endings.lift(call.call_id)
        call.opened = OpenedBy(sent, commanded=True)
        if call.tenure.has_ended:
            call.tenure.resume()

    def _start_tombstone(self, call: OwnedCall) -> None:
        timer = asyncio.get_running_loop().call_later(
            self._configured.timings.tombstone, self._lanes.submit, call.call_id, partial(self._tombstone_over, call)
        )
        call.tenure.end(timer)

    async def _tombstone_over(self, call: OwnedCall) -> None:
        if not (call.tenure.has_ended and self._owned_calls.is_ours(call)):
            return
        if call.events.pending:  # it will be known whose they are to tell
            self._start_tombstone(call)
            return
        try:
            await self._owned_calls.release(call)
        except BrokerError:  # the placer has not heard of the end from us, who leave
            self._start_tombstone(call)

    # Another worker's call.

    def end_elsewhere(self, call_id: CallId) -> None:
        """Close and release a call that ended while this worker was away."""
        if (call := self._owned_calls.calls.get(call_id)) is not None:
            self._lanes.submit(call_id, partial(self._give_up, call, EndReason.CALL_ENDED))

    def yield_to(self, call_id: CallId, owner: WorkerId, link: str) -> None:
        """Close and release a call that another worker owns, as it says over ``link``, unless that one gives it up."""
        if (call := self._owned_calls.calls.get(call_id)) is not None:
            self._lanes.submit(call_id, partial(self._yield, call, owner, link))

    async def _yield(self, call: OwnedCall, owner: WorkerId, link: str) -> None:
        if call.check.yields(self._worker_id, owner, link):
            await self._give_up(call, EndReason.SUPERSEDED)
        else:
            log.info("owner.kept", call_id=call.call_id, other=owner)

    async def _give_up(self, call: OwnedCall, reason: EndReason) -> None:
        call.hand_over = None  # it has its next owner, or has ended
        await self.close_all(call, reason)
        if call.recipe.away:
            sessions = sum(bool(call.recipe.naming(one.life)) for one in call.events.pending)
            log.info("owner.ends_left_to_placer", call_id=call.call_id, sessions=sessions)
        self._owned_calls.leave_to_placer(call)
        try:
            await self._owned_calls.confirmed(call)
        except BrokerError:
            return  # whose its ends are is asked anew with the next link
        await self._owned_calls.release(call)
