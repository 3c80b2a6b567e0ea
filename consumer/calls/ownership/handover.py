"""Hands a call over to another worker when its owner leaves, so that its sessions open again there."""

import asyncio

import structlog

from consumer.broker.errors import BrokerError
from consumer.broker.message import Message
from consumer.calls.events import Reporter
from consumer.calls.messages import forwarding
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.ownership.closing import Closing
from consumer.calls.ownership.owned_calls import OwnedCalls
from schemas import headers
from schemas.calls import CallEvent, CallKind
from schemas.events import EndReason
from schemas.ids import WorkerId

log = structlog.get_logger(__name__)

LOOK_EVERY = 0.05

HELD_WITHIN = 1.0
"""How long (s) to wait for the return of a recipe that was just written. It takes milliseconds."""

TOLD_WITHIN = 2.0
"""How long (s) RabbitMQ may take at least to confirm the events of a call's ends. In an alarm it confirms none."""


class Handover:
    """Hands calls over, one by one, each on its lane."""

    def __init__(
        self,
        worker_id: WorkerId,
        reporter: Reporter,
        owned_calls: OwnedCalls,
        closing: Closing,
    ) -> None:
        self._worker_id = worker_id
        self._reporter = reporter
        self._owned_calls = owned_calls
        self._closing = closing
        self.cut = 0
        """How many requests were cut off because they still ran when their call had to be handed over."""

    async def give_away(self, call: OwnedCall, *, until: float, hand_over: bool) -> None:
        """Let a call's tool calls finish until ``until`` (loop's clock), close the call, and pass its recipe on.

        The bindings stay meanwhile. Messages for the call wait on its lane and are then forwarded to the placer, where
        the recipe arrives before them. The placer takes the bindings away before it places the call.
        """
        sessions = list(call.sessions.values())
        try:
            if cut := await _still_running(sessions, until):
                self.cut += cut
                log.warning("owner.requests_cut", call_id=call.call_id, requests=cut)
            await _recipe_held(call)
            call.hand_over = self._handover_message(call, sessions) if hand_over else None
            await self._closing.close_all(call, EndReason.WORKER_SHUTDOWN)
            await self._owned_calls.tell_ends(call)
            if call.events.pending:  # a recipe now names what had none
                await _recipe_held(call)
                await self._owned_calls.tell_ends(call)
            self._owned_calls.leave_to_placer(call)
            now = asyncio.get_running_loop().time()
            async with asyncio.timeout_at(max(until, now + TOLD_WITHIN)):
                # Its closed event comes before it opens elsewhere, and before its recipe is removed.
                await self._reporter.settled()
            await self._owned_calls.release(call)
        except (BrokerError, TimeoutError) as error:
            # The call is released as soon as RabbitMQ confirms the rest. If it does not before this worker is gone, the
            # recipe stays in the inbox, and is placed as an orphan.
            self._owned_calls.leave_to_placer(call)
            log.warning("owner.left_without_broker", call_id=call.call_id, error=repr(error))

    def _handover_message(self, call: OwnedCall, sessions: list[CallSession]) -> Message | None:
        """Return the message for the placer about a call that we leave: its recipe, or that it has ended."""
        if call.tenure.has_ended:
            event = CallEvent(call_id=call.call_id, kind=CallKind.ENDED, source="worker")
            message = Message(body=event.model_dump_json().encode(), type=event.message_type)
        elif alive := [one for one in sessions if one.end_reason in (None, EndReason.WORKER_SHUTDOWN)]:
            message = self._owned_calls.handover_message(call, alive)
        else:
            return None
        return forwarding.onward(message, {headers.RETURNED: self._worker_id, headers.RETURNS: headers.FOR_GOOD})


async def _still_running(sessions: list[CallSession], until: float) -> int:
    """Wait until no request runs, or until ``until``. Return how many still run."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        if not _running(sessions):
            return 0
        await asyncio.sleep(LOOK_EVERY)
    return _running(sessions)


async def _recipe_held(call: OwnedCall) -> None:
    """Wait until we hold the recipe, unless a lost link has taken it away.

    Until then we may not report the ends, which must be reported before the call is opened elsewhere.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + HELD_WITHIN
    while loop.time() < until:
        if not call.recipe.away - call.recipe.given_back:
            return
        await asyncio.sleep(LOOK_EVERY)


def _running(sessions: list[CallSession]) -> int:
    return sum(one.in_flight for one in sessions if not one.has_ended)
