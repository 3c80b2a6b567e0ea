"""The books of an owner: that the broker's recipes and bindings, and what was told, agree with the sessions.

The order is what makes them true when a worker dies in between. A session is told of right behind its recipe, so
whatever was ``created`` can be told ``lost``, and who tells that tells ``created`` as well unless it knows that it has
been (``told``); a recipe goes when the session's end has been told, so no life ends untold. What cannot be done without
a broker is caught up when it is back, or at the next look.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from consumer.broker.errors import BrokerError
from consumer.calls.context import Context
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.ownership.owned_calls import Holdings
from consumer.concurrency.keyed_queues import KeyedQueues
from schemas.ids import CallId

log = structlog.get_logger(__name__)

CHECK_EVERY = 120.0
"""How often (s) a call is asked for though we were never away: what misleads its messages is found out."""

ASK_AT_ONCE = 16
"""How many calls are asked for at once: behind a flood of questions our presence would come too late."""

GONE_ASTRAY = 15.0
"""How long (s) beyond the grace a recipe that the broker has had back may take to one who is known to own the call.
Longer, and the broker keeps it back for minutes (see the topology), or has lost it: a new one is written."""

LOOK_EVERY = 5.0
"""How often (s) the books are looked through: recipes to renew, questions that nobody answered."""


class Books:
    """Keeps the books of the calls that a worker holds; everything of one call on the call's lane."""

    def __init__(self, context: Context, holdings: Holdings, lanes: KeyedQueues) -> None:
        self._context = context
        self._holdings = holdings
        self._lanes = lanes
        self.over: Callable[[CallId], None] = lambda _: None
        """Called with each call that has ended elsewhere, and has a session here all the same."""
        self._asking = asyncio.Semaphore(ASK_AT_ONCE)
        self.told = 0
        """The highest revision of a recipe up to which the broker has all recipes, and what is told with them."""
        self.leaving = False
        """No call stays for the sake of repeated tool calls any more."""

    async def keep(self, call_id: CallId) -> None:
        """Bring the recipe in line with the sessions; release a call that has nothing left to own."""
        call = self._holdings.calls.get(call_id)
        if call is None or call.untold_ends:
            return  # not ours, or not known to be: the recipe stays until its owner has told of the end
        await self._confirmed(call)
        if call.sessions:
            if call.dirty:
                self._holdings.write_recipe(call)
                call.unconfirmed = True
            self.tell_created(call)
            await self._confirmed(call)
        elif call.ended is not None or call.rings is not None:
            await self._holdings.drop_recipe(call)
        elif (call.users or call.answers) and not self.leaving:
            # A repeated tool call must find the answer that was given, not another owner that executes it again.
            await self._holdings.drop_recipe(call)
            self._linger(call)
        else:
            await self._holdings.release(call)

    def keep_later(self, call_id: CallId) -> None:
        """Keep the books when it is the call's turn, and again later if the broker fails."""
        self._lanes.submit(call_id, partial(self.keep_or_leave_it, call_id))

    async def keep_or_leave_it(self, call_id: CallId) -> None:
        """Keep the books, or later if the broker fails."""
        try:
            await self.keep(call_id)
        except BrokerError as error:
            log.info("books.later", call_id=call_id, error=str(error))

    def tell_created(self, call: OwnedCall) -> None:
        """Tell of the sessions that have waited for their recipe."""
        for session in call.untold:
            self._context.reporter.created(session)
            call.unconfirmed = True
        call.untold.clear()

    def note_end(self, call: OwnedCall, session: CallSession, tell: Callable[[], None]) -> None:
        """A session has ended, which ``tell`` tells of; and first of all, if nobody has, that it was created."""
        if session in call.untold:
            call.untold.remove(session)
            call.untold_ends.append(partial(self._context.reporter.created, session))
        call.untold_ends.append(tell)

    def recipe_is_back(self, call_id: CallId) -> None:
        """A recipe of the call has come to us: no placer has it, so ends that waited for it are ours to tell."""
        call = self._holdings.calls.get(call_id)
        if call is None:
            return
        if call.may_tell:
            call.tell_ends()
        if not call.sessions:  # it may have been owned for the sake of that end only
            self.keep_later(call_id)

    async def _confirmed(self, call: OwnedCall) -> None:
        if call.unconfirmed:
            revision = call.revision  # whatever has a lower one has been put before
            await self._context.reporter.settled()
            if revision > self.told:
                self.told = revision
                self._context.presence.report_soon()  # the placer must know it, should we die
            call.unconfirmed = False  # what ends meanwhile has its own turn on the lane

    def _linger(self, call: OwnedCall) -> None:
        if call.lingers is None:
            call.lingers = asyncio.get_running_loop().call_later(
                self._context.timings.tombstone, self._lanes.submit, call.call_id, partial(self._linger_no_more, call)
            )

    async def _linger_no_more(self, call: OwnedCall) -> None:
        call.lingers = None
        if call.users or call.untold_ends:
            self._linger(call)
        elif not (call.sessions or call.ended or call.rings) and self._holdings.calls.get(call.call_id) is call:
            await self._holdings.release(call)

    # After we were away.

    def reattached(self) -> None:
        """After a new link: ask for each call whether it is still ours, and let go of what is not.

        The requests exchange leads here again when that is known: two workers that are bound to it would both answer.
        """
        self._look()

    async def run(self) -> None:
        """Write recipes anew before the broker's ack timeout, and catch up with what failed; for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._look()

    def _look(self) -> None:
        if not self._holdings.attached:
            return
        for call in self._holdings.to_renew():
            self.keep_later(call.call_id)
        now = asyncio.get_running_loop().time()
        astray = self._context.presence.grace + GONE_ASTRAY
        for call in self._holdings.calls.values():
            ended = self._context.endings.bar(call.call_id, call.owned_since)
            if (call.sessions or call.rings) and call.ended is None and ended:
                self.over(call.call_id)
            if call.given_back and not call.unchecked and call.checked_at <= now - astray:
                log.warning("books.recipe_gone_astray", call_id=call.call_id, revisions=sorted(call.given_back))
                call.given_back.clear()
                call.dirty = True
                self.keep_later(call.call_id)
                self.recipe_is_back(call.call_id)
            if call.unchecked or (call.sessions and call.checked_at <= now - CHECK_EVERY):
                self._lanes.submit(call.call_id, partial(self._check, call))
        for call_id in self._holdings.leaked:
            self._lanes.submit(call_id, partial(self._let_go, call_id))

    async def _check(self, call: OwnedCall) -> None:
        try:
            async with self._asking:
                if self._holdings.calls.get(call.call_id) is call:
                    await self._holdings.check(call)
        except BrokerError as error:  # it stays unchecked
            log.info("books.check_later", call_id=call.call_id, error=str(error))

    async def _let_go(self, call_id: CallId) -> None:
        try:
            await self._holdings.unbind_leaked(call_id)
        except BrokerError:
            self._holdings.leaked.add(call_id)
