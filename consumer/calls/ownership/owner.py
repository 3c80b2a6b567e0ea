"""The owner: handles the messages of calls that are bound to this worker's inbox.

What changes a call's life is handled on the call's lane, one after the other, and acknowledged when its effect is
safe; what uses its sessions waits for the lane and then runs beside everything else.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from consumer.broker.message import Delivery
from consumer.broker.outcome import Done, Hold, Outcome, decided, told_about
from consumer.broker.settling import Settler
from consumer.broker.topology import Names
from consumer.calls.cluster.membership import Presence
from consumer.calls.messages.parsing import Addressed, about, read_addressed, refused
from consumer.calls.messages.recipes import is_untold
from consumer.calls.ownership.call_requests import CallRequests
from consumer.calls.ownership.early_messages import EarlyMessages
from consumer.calls.ownership.handover import Handover
from consumer.calls.ownership.lifecycle import CallLifecycle
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.calls.ownership.recovery import Recovery
from consumer.calls.ownership.returns import Returns
from consumer.concurrency.keyed_queues import KeyedQueues
from consumer.concurrency.task_set import Tasks
from schemas import headers
from schemas.errors import LimitReached, SessionsError
from schemas.ids import CallId, SessionId, WorkerId
from schemas.internal import OwnerCheck, Recipe
from schemas.replies import failed
from schemas.requests import CallEnded, Lifecycle, SessionClose, Use

STOP_TIMEOUT = 5.0
"""How much of its time (s) leaving reserves for stopping processes, if tool calls do not end."""

MOST_PLACERS = 32
"""How many placers are remembered. Only one places at a time, but each worker may have been it."""


class Owner:
    """Takes deliveries of the inbox and of the requests queue; both accept every message type."""

    def __init__(
        self,
        worker_id: WorkerId,
        names: Names,
        settler: Settler,
        presence: Presence,
        lanes: KeyedQueues,
        *,
        owned_calls: OwnedCalls,
        lifecycle: CallLifecycle,
        recovery: Recovery,
        requests: CallRequests,
        handover: Handover,
        returns: Returns,
    ) -> None:
        self._worker_id = worker_id
        self._names = names
        self._settler = settler
        self._presence = presence
        self._lanes = lanes
        self._owned_calls = owned_calls
        self._lifecycle = lifecycle
        self._recovery = recovery
        self._requests = requests
        self._handover = handover
        self._returns = returns
        self._tasks = Tasks()
        self._early_messages = EarlyMessages()
        self.placements: dict[WorkerId, int] = {}
        """The highest placement number seen of each placer, for our reports."""

    def owns(self, call_id: CallId) -> bool:
        """Whether a call is this worker's."""
        return call_id in self._owned_calls.calls

    def take(self, delivery: Delivery) -> None:
        """Take a delivery of the inbox or the requests queue."""
        try:
            call_id, message = read_addressed(delivery, self._names)
        except SessionsError as error:
            self._settle(delivery, decided(refused(error)))
            return
        if placement := delivery.message.headers.get(headers.PLACEMENT):
            self._note_placement(placement)
            if isinstance(message, OwnerCheck) or headers.LATE in delivery.message.headers:
                self._owned_calls.own(call_id)  # it goes back to who had it, and so does its recipe
            else:
                self._owned_calls.own_anew(call_id, placement)
            self._hand_on(delivery, call_id, message)
            self._early_messages.admit(call_id)
        elif self._waits_for_placement(delivery, call_id):
            # The binding is there before the message that was placed: what comes through it waits for that one.
            self._early_messages.wait(call_id, partial(self._hand_on, delivery, call_id, message))
        else:
            self._hand_on(delivery, call_id, message)

    def _waits_for_placement(self, delivery: Delivery, call_id: CallId) -> bool:
        # A worker that leaves deletes its inbox: what it held until then would be lost.
        unowned = call_id not in self._owned_calls.calls and not self._owned_calls.leaving
        return unowned and delivery.exchange == self._names.sessions

    def _note_placement(self, placement: str) -> None:
        placer, _, number = placement.rpartition("/")
        highest = max(int(number), self.placements.pop(WorkerId(placer), 0))
        self.placements[WorkerId(placer)] = highest  # the last of them is who placed last
        if len(self.placements) > MOST_PLACERS:
            del self.placements[next(iter(self.placements))]

    def _hand_on(self, delivery: Delivery, call_id: CallId, message: Addressed) -> None:
        returned = headers.RETURNS in delivery.message.headers  # such as what we have handed over
        if isinstance(message, Recipe) and message.worker_id == self._worker_id and not returned:
            self._keep_recipe(delivery, message)
        elif isinstance(message, Use):
            self._settle(delivery, self._requests.take(delivery, call_id, message))
        else:
            its_turn = self._end_waits(call_id, message)
            self._lanes.submit(call_id, partial(self._settled, delivery, call_id, message, its_turn))

    def _end_waits(self, call_id: CallId, message: Addressed) -> Callable[[], None]:
        """Tell the starts on the call's lane that an end waits behind them. Call the result when it is its turn."""
        call = self._owned_calls.calls.get(call_id)
        match message:
            case CallEnded() if call is not None:
                return call.starting.end_waits(None)
            case SessionClose(session_id=session_id) if call is not None:
                return call.starting.end_waits(None if session_id == SessionId(call_id) else SessionId(session_id))
            case _:
                return lambda: None

    def _keep_recipe(self, delivery: Delivery, recipe: Recipe) -> None:
        freed = self._owned_calls.recipe_arrived(delivery, recipe)
        if freed is not delivery:
            self._settle(delivery, decided(Hold()))
        if freed is not None:
            self._tasks.start(self._owned_calls.free(freed), "recipe-ack")
        self._recovery.recipe_is_back(recipe.call_id)

    def _settle(self, delivery: Delivery, deciding: Coroutine[Any, Any, Outcome]) -> None:
        self._tasks.start(self._settle_and_report(delivery, deciding), f"settle {delivery.type}")

    async def _settled(
        self,
        delivery: Delivery,
        call_id: CallId,
        message: Lifecycle | Recipe | OwnerCheck,
        its_turn: Callable[[], None],
    ) -> None:
        its_turn()
        await self._settle_and_report(delivery, self._changed(delivery, call_id, message))

    async def _settle_and_report(self, delivery: Delivery, deciding: Coroutine[Any, Any, Outcome]) -> None:
        """Settle a delivery, and report the load if the placer had placed it here.

        A start that opens nothing changes no load, so nothing else would make a report.
        """
        await self._settler.settle(delivery, deciding)
        if headers.PLACEMENT in delivery.message.headers:
            self._presence.report_soon()

    # What changes a call's life; on its lane.

    async def _changed(self, delivery: Delivery, call_id: CallId, message: Lifecycle | Recipe | OwnerCheck) -> Outcome:
        return told_about(await self._change(delivery, call_id, message), **about(message))

    async def _change(self, delivery: Delivery, call_id: CallId, message: Lifecycle | Recipe | OwnerCheck) -> Outcome:
        if isinstance(message, Recipe) and is_untold(message, delivery.message.headers):
            await self._recovery.tell_lost(message, delivery.message.headers)
        call = self._owned_calls.calls.get(call_id)
        # A call that has sessions is ours until it is handed over, later on its lane: sent on before, its messages
        # would open them on another worker beside those that are here.
        leaves_it = self._owned_calls.leaving and not isinstance(message, CallEnded | SessionClose)
        if call is None or (leaves_it and not call.sessions):
            if call is not None:
                await self._owned_calls.confirmed(call)  # its ends come before it opens elsewhere
                await self._owned_calls.release(call)
            return self._returns.not_ours(delivery, call_id)
        try:
            outcome = await self._lifecycle.carry_out(delivery, call, message)
        except LimitReached as error:
            if not call.sessions:
                await self._owned_calls.release(call)
                return self._returns.no_room(delivery, call_id)
            outcome = Done(failed(error))
        except SessionsError as error:
            outcome = Done(failed(error))
        await self._recovery.keep(call_id)
        return outcome

    # The worker's life.

    async def leave(self, hand_over: bool, timeout: float) -> bool:
        """Hand over or close every call. Return whether calls and requests were finished within ``timeout`` (s)."""
        self._owned_calls.leaving = True
        self._early_messages.admit_all()
        until = asyncio.get_running_loop().time() + timeout - STOP_TIMEOUT
        for call in list(self._owned_calls.calls.values()):
            give_away = partial(self._handover.give_away, call, until=until, hand_over=hand_over)
            self._lanes.submit(call.call_id, give_away)
        return await self._lanes.drain(timeout) and not self._handover.cut

    async def stop(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for what is in progress, such as the last ends, and stop the rest."""
        self._early_messages.stop()
        self._requests.stop()
        await asyncio.gather(self._tasks.drain(timeout), self._lanes.drain(timeout))
        await self._lanes.abandon()
        await self._tasks.cancel()
        self._owned_calls.let_all_go()
