"""Keeps calls recoverable: recipes, bindings and published events agree with the sessions.

The order keeps this true if a worker dies in between. ``created`` is published right behind the recipe, so a session
that was reported as ``created`` can be reported as ``lost``. The worker that reports ``lost`` reports ``created``
first, unless it knows that this was done (``told``). A recipe is removed after the session's end was published, so the
end of no life is missing. What cannot be done without a broker is caught up when it is back, or at the next look.
"""

import asyncio
from contextlib import suppress
from functools import partial
from typing import assert_never

import structlog

from consumer.broker.errors import BrokerError
from consumer.broker.message import Headers
from consumer.calls.cluster.ended_calls import Endings
from consumer.calls.cluster.membership import Presence
from consumer.calls.context import Configured
from consumer.calls.events import Reporter
from consumer.calls.messages.recipes import which_restored
from consumer.calls.owned_call import OwnedCall, Reason
from consumer.calls.ownership.closing import Closing
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.calls.ownership.upkeep import Upkeep, look_at, upkeep_of
from consumer.calls.requests.idempotency import AnswerWindows
from consumer.concurrency.keyed_queues import KeyedQueues
from consumer.concurrency.task_set import Tasks
from schemas.events import EndReason
from schemas.ids import CallId
from schemas.internal import Recipe

log = structlog.get_logger(__name__)

ASK_AT_ONCE = 16
"""How many calls are asked for at once. A flood of questions would delay our presence report."""

LOOK_EVERY = 5.0
"""How often (s) all calls are checked: for recipes to renew, and for questions without an answer."""


class Recovery:
    """Keeps the calls of a worker recoverable. It handles each call on the call's lane."""

    def __init__(
        self,
        owned_calls: OwnedCalls,
        closing: Closing,
        answers: AnswerWindows,
        lanes: KeyedQueues,
        *,
        reporter: Reporter,
        presence: Presence,
        endings: Endings,
        configured: Configured,
    ) -> None:
        self._owned_calls = owned_calls
        self._closing = closing
        self._answers = answers
        self._lanes = lanes
        self._reporter = reporter
        self._presence = presence
        self._endings = endings
        self._configured = configured
        self._tasks = Tasks()
        self._asking = asyncio.Semaphore(ASK_AT_ONCE)
        self._unasked: set[CallId] = set()
        """Calls whose owner could not be asked for. Each is logged once, and again when the answer has come."""
        self._told = 0
        """The highest revision up to which the broker has all recipes and events, except those left to placers."""

    @property
    def told(self) -> int:
        """The highest revision up to which the broker has the events of all recipes."""
        left_from = self._owned_calls.left_from
        return self._told if left_from > self._told else int(left_from) - 1

    async def keep(self, call_id: CallId) -> None:
        """Write the recipe again if the sessions differ from it. Release a call that has nothing left.

        It returns when the broker has confirmed what was published for the call, unless that waits for a recipe. Only
        then is a message acknowledged that changes the call's life.

        Raises:
            BrokerError: the link is lost, or the broker fails.
        """
        call = self._owned_calls.calls.get(call_id)
        if call is None:
            return
        await self._owned_calls.tell_ends(call)
        if call.events.pending:
            if call.events.unheard_rejection:  # it does not wait for the recipe, as those do
                await self._owned_calls.confirmed(call)
            return
        await self._confirmed(call)
        upkeep = upkeep_of(call, has_answers=self._answers.has_some(call), leaving=self._owned_calls.leaving)
        match upkeep:
            case Upkeep.WAIT:
                pass
            case Upkeep.WRITE_RECIPE:
                self._owned_calls.write_recipe(call)
                await self._tell_created(call)
            case Upkeep.NOTHING:
                await self._tell_created(call)
            case Upkeep.DROP_RECIPE:
                await self._owned_calls.drop_recipe(call)
            case Upkeep.KEEP_ANSWERS:
                await self._owned_calls.drop_recipe(call)
                if call.tenure.reason is not Reason.ANSWERS:
                    self._keep_answers(call)
            case Upkeep.RELEASE:
                await self._owned_calls.release(call)
            case _:
                assert_never(upkeep)

    def keep_later(self, call_id: CallId) -> None:
        """Keep the call recoverable on its lane. Try again later if the broker fails."""
        self._lanes.submit(call_id, partial(self.keep_or_retry, call_id))

    async def keep_or_retry(self, call_id: CallId) -> None:
        """Keep the call recoverable. Try again later if the broker fails."""
        try:
            await self.keep(call_id)
        except BrokerError as error:
            log.info("recovery.retry", call_id=call_id, error=str(error))

    async def _tell_created(self, call: OwnedCall) -> None:
        """Publish ``created`` of the sessions whose recipe is written."""
        self._owned_calls.tell_created(call)
        await self._confirmed(call)

    async def _confirmed(self, call: OwnedCall) -> None:
        if call.events.unconfirmed:
            revision = call.recipe.revision  # whatever has a lower one has been put before
            await self._owned_calls.confirmed(call)  # what ends meanwhile has its own turn on the lane
            if revision > self._told:
                self._told = revision
                self._presence.report_soon()  # the placer must know it, should we die

    def tell_ends_soon(self, call: OwnedCall) -> None:
        """Publish the waiting ends if this worker must report them, without waiting for the call's lane.

        If the link is lost, they wait until it is known which worker reports them.
        """
        if call.events.pending and call.may_tell:
            self._tasks.start(self._tell_ends(call), "tell-ends")

    async def _tell_ends(self, call: OwnedCall) -> None:
        with suppress(BrokerError):
            await self._owned_calls.tell_ends(call)

    def recipe_is_back(self, call_id: CallId) -> None:
        """Publish the ends that waited for a recipe. It came back to us, so no placer has it."""
        call = self._owned_calls.calls.get(call_id)
        if call is None:
            return
        self.tell_ends_soon(call)
        if not call.sessions or call.recipe.dirty:  # it may have been owned for the sake of that end only
            self.keep_later(call_id)

    async def tell_lost(self, recipe: Recipe, given: Headers) -> None:
        """Report the sessions of the former owner as lost: its recipe came to this worker, the owner now.

        ``given`` are the headers of the recipe's message.
        """
        told = recipe.revision <= self._presence.told_of(recipe.worker_id)
        self._reporter.lost(recipe, EndReason.WORKER_GONE, restored=which_restored(recipe, given), told=told)
        await self._reporter.settled()

    def _keep_answers(self, call: OwnedCall) -> None:
        timer = asyncio.get_running_loop().call_later(
            self._configured.timings.tombstone,
            self._lanes.submit,
            call.call_id,
            partial(self._release_with_answers, call),
        )
        call.tenure.keep_answers(timer)

    async def _release_with_answers(self, call: OwnedCall) -> None:
        if call.tenure.reason is not Reason.ANSWERS or not self._owned_calls.is_ours(call):
            return
        if call.tool_calls or call.events.pending:
            self._keep_answers(call)
        else:
            await self._owned_calls.release(call)

    # After we were away.

    async def still_ours(self, call: OwnedCall) -> bool:
        """Record that we own the call, because our own owner check came back. Return whether that was in doubt.

        Raises:
            BrokerError: the requests queue was not bound. It stays in doubt, and is asked for again.
        """
        # A link that is lost from here on brings new doubts, which the answer over it does not remove.
        was_in_doubt = call.check.confirmed(asyncio.get_running_loop().time())
        try:
            await self._owned_calls.bind_requests(call)
        except BrokerError:
            call.check.in_doubt = True
            raise
        if call.call_id in self._unasked:
            self._unasked.discard(call.call_id)
            log.info("recovery.owner_checked", call_id=call.call_id)
        if was_in_doubt:
            await self._closing.close_again(call)
        if was_in_doubt and call.sessions:  # the broker counts one delivery more of the recipe with each link
            call.recipe.outdate()
        self.tell_ends_soon(call)
        return was_in_doubt

    async def run(self) -> None:
        """Renew recipes before the broker's ack timeout, and retry what failed, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self.look()

    def look(self) -> None:
        """Check all calls if there is a link. After a new link, ask who owns each call, and release those of others.

        The requests queue is bound again only after the answer, because two bound workers would both answer requests.
        """
        if not self._owned_calls.attached:
            return
        now = asyncio.get_running_loop().time()
        self._unasked &= self._owned_calls.calls.keys()
        for call in self._owned_calls.to_renew(now):
            self.keep_later(call.call_id)
        for call in self._owned_calls.calls.values():
            self._look_at(call, now)
        for call_id in self._owned_calls.leaked:
            self._lanes.submit(call_id, partial(self._unbind_leaked, call_id))

    def _look_at(self, call: OwnedCall, now: float) -> None:
        # Had we heard of this end in time, the start would have opened nothing.
        has_ended = self._endings.ends(call.call_id, call.opened)
        found = look_at(call, now=now, grace=self._presence.grace, has_ended=has_ended)
        if found.ended_elsewhere:
            self._closing.end_elsewhere(call.call_id)
        if found.recipe_missing:
            log.warning("recovery.recipe_missing", call_id=call.call_id, revisions=sorted(call.recipe.given_back))
            self._owned_calls.stop_waiting(call)
            self.keep_later(call.call_id)
            self.recipe_is_back(call.call_id)
        if found.owner_in_doubt:
            self._lanes.submit(call.call_id, partial(self._check_owner, call))

    async def _check_owner(self, call: OwnedCall) -> None:
        try:
            async with self._asking:
                if self._owned_calls.is_ours(call):
                    await self._owned_calls.check(call)
        except BrokerError as error:  # it stays in doubt
            if call.call_id not in self._unasked:
                self._unasked.add(call.call_id)
                log.info("recovery.owner_check_retry", call_id=call.call_id, error=str(error), every_s=LOOK_EVERY)

    async def _unbind_leaked(self, call_id: CallId) -> None:
        try:
            await self._owned_calls.unbind_leaked(call_id)
        except BrokerError:
            self._owned_calls.leaked.add(call_id)
