"""What this worker owns: its calls, the bindings that lead to them, and the recipes that outlive it.

A call is owned from the moment the placer has bound it to the inbox until it is released. While it has sessions, its
recipe stands unacknowledged in the inbox: should the worker die, the broker hands it back and the call is placed anew.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable

import structlog

from consumer.broker.channel import Channel
from consumer.broker.errors import BrokerError
from consumer.broker.message import CALL_HEADER, Delivery, Message
from consumer.broker.topology import Binding
from consumer.calls.context import Context
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.requests.idempotency import Answers, Shelf
from consumer.concurrency.expiring_dict import Memory
from schemas.ids import CallId, routing_key
from schemas.internal import OwnerCheck, Recipe, SessionRecipe

log = structlog.get_logger(__name__)

RENEW_AFTER = 600.0
"""When a recipe is written anew (s): the broker's ``consumer_timeout`` is 30 minutes, and closes the channel."""

LIVED = 60.0
"""How long (s) a restored call must live before the workers that died with it are forgotten."""

TRAVELS = 600.0
"""How long (s) a recipe may be on its way from a lost link to a placer and back, when the broker is away as well."""


class Holdings:
    """The calls of this worker, and their traces in the broker."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.calls: dict[CallId, OwnedCall] = {}
        self._shelf = Shelf(context.bounds.max_kept)
        self.leaked: set[CallId] = set()
        """Calls that are not ours any more, whose binding could not be taken away."""
        self._revisions = itertools.count(1)  # no two recipes of a worker are mistaken for each other
        self._left_to_placer: Memory[tuple[set[int], list[Callable[[], None]]]] = Memory(TRAVELS)
        self._channel: Channel | None = None
        self._requests_queue = ""

    @property
    def inbox(self) -> str:
        """The name of this worker's inbox."""
        return self._context.names.inbox(self._context.worker_id)

    def attach(self, channel: Channel, requests_queue: str) -> None:
        """A new link: its channel, and its requests queue."""
        self._channel = channel
        self._requests_queue = requests_queue

    def detach(self) -> None:
        """The link is lost; exclusive queues and their bindings have gone with it, and the broker has the recipes."""
        self._channel = None
        for call in self.calls.values():
            call.unchecked = True
            if call.held is not None:
                call.given_back.add(call.held_revision)
            call.held = None

    @property
    def attached(self) -> bool:
        """Whether there is a link."""
        return self._channel is not None

    @property
    def untold_ends(self) -> int:
        """How many events wait until it is known whose their call is."""
        return sum(len(call.untold_ends) for call in self.calls.values())

    def own(self, call_id: CallId) -> OwnedCall:
        """Take a call on; the placer has bound it."""
        if call_id not in self.calls:
            self.calls[call_id] = OwnedCall(call_id, answers=Answers(self._shelf))
        return self.calls[call_id]

    def _requests_binding(self, call: OwnedCall, queue: str) -> Binding:
        return Binding(self._context.names.requests, queue, routing_key(call.call_id))

    async def bind_requests(self, call: OwnedCall) -> None:
        """Bind our requests queue to the call; does nothing without a link, because ``attach`` does it then."""
        queue = self._requests_queue
        if self._channel is not None and call.bound_to != queue:
            await self._channel.bind(self._requests_binding(call, queue))
            call.bound_to = queue

    async def release(self, call: OwnedCall) -> None:
        """Own a call no longer: what comes for it now reaches the placer. Idempotent."""
        if self.calls.pop(call.call_id, None) is None:
            return
        call.let_go()
        call.tell_ends()
        await self.drop_recipe(call)
        try:
            await self._unbind(call)
        except BrokerError:
            self.leaked.add(call.call_id)

    async def _unbind(self, call: OwnedCall) -> None:
        channel = self._channel
        if channel is None:
            self.leaked.add(call.call_id)  # until the next link; what comes through it is sent on
            return
        bound_to, call.bound_to = call.bound_to, None
        await channel.unbind(self._inbox_binding(call.call_id))
        if bound_to == self._requests_queue:
            await channel.unbind(self._requests_binding(call, bound_to))

    async def unbind_leaked(self, call_id: CallId) -> None:
        """Take away the binding of a call that is not ours, if it still is not."""
        if self._channel is not None and call_id in self.leaked:
            self.leaked.discard(call_id)
            if call_id not in self.calls:
                await self._channel.unbind(self._inbox_binding(call_id))

    def _inbox_binding(self, call_id: CallId) -> Binding:
        return Binding(self._context.names.sessions, self.inbox, routing_key(call_id))

    def recipe(self, call: OwnedCall, sessions: Iterable[CallSession]) -> Recipe:
        """The call's recipe as of now."""
        return Recipe(
            call_id=call.call_id,
            worker_id=self._context.worker_id,
            revision=call.revision,
            sessions=[
                SessionRecipe(
                    session_id=session.session_id,
                    service_name=session.service_name,
                    created_at=session.created_at,
                    last_accessed=session.last_accessed,
                    timeout=session.timeout,
                    metadata=session.metadata,
                    life=session.life,
                    restores=call.restores,
                )
                for session in sessions
            ],
        )

    def write_recipe(self, call: OwnedCall) -> None:
        """Put the recipe into the inbox; when the reporter has settled, a dead worker's call can be restored."""
        call.revision = next(self._revisions)
        call.dirty = False
        call.written_at = asyncio.get_running_loop().time()
        self._context.reporter.keep(self.recipe_message(call, call.sessions.values()), self.inbox)

    def recipe_message(self, call: OwnedCall, sessions: Iterable[CallSession]) -> Message:
        """The recipe as a message."""
        return Message(
            body=self.recipe(call, sessions).model_dump_json().encode(),
            type=Recipe.type,
            headers={CALL_HEADER: call.call_id},
        )

    def recipe_arrived(self, delivery: Delivery, recipe: Recipe) -> Delivery | None:
        """Keep a recipe of ours that came back; returns the delivery that can be let go of instead."""
        self._came_back(recipe)
        call = self.calls.get(recipe.call_id)
        if call is None:
            return delivery
        call.given_back.discard(recipe.revision)
        if not (call.sessions or call.untold_ends) or recipe.revision != call.revision:
            return delivery
        call.held, before = delivery, call.held
        call.held_revision = recipe.revision
        return before

    def leave_to_placer(self, call: OwnedCall) -> None:
        """Leave it to the placer to tell of the ends: it has our recipe, and who has it tells of its sessions.

        Should the recipe come to us after all, the placer has told nothing, and we do.
        """
        self._left_to_placer.set(call.call_id, (set(call.given_back), list(call.untold_ends)))
        call.untold_ends.clear()

    def _came_back(self, recipe: Recipe) -> None:
        if (left := self._left_to_placer.get(recipe.call_id)) is None:
            return
        awaited, ends = left
        awaited.discard(recipe.revision)
        if not awaited:
            self._left_to_placer.drop(recipe.call_id)
            for tell in ends:
                tell()

    async def drop_recipe(self, call: OwnedCall) -> None:
        """The call can no longer be restored; a recipe that is still on its way is outdated by the revision."""
        call.revision = next(self._revisions)
        call.dirty = False
        held, call.held = call.held, None
        if held is not None:
            await held.ack()

    def to_renew(self) -> list[OwnedCall]:
        """Calls whose recipe is out of date, or is one that the broker has been waiting long to get back."""
        now = asyncio.get_running_loop().time()
        for call in self.calls.values():
            if call.restores and call.restored_at <= now - LIVED:
                call.restores = 0
                call.dirty = True
            elif call.sessions and call.written_at <= now - RENEW_AFTER:
                call.dirty = True
        return [call for call in self.calls.values() if call.dirty and call.sessions]

    async def check(self, call: OwnedCall) -> None:
        """Ask under the call's own key who owns it, after we were away; the answer comes to the worker's queue."""
        names = self._context.names
        question = OwnerCheck(call_id=call.call_id, worker_id=self._context.worker_id, revision=call.revision)
        await self._context.publisher.publish(
            Message(
                body=question.model_dump_json().encode(),
                type=OwnerCheck.type,
                headers={CALL_HEADER: call.call_id},
                reply_to=names.worker(self._context.worker_id, self._requests_queue.rpartition(".")[2]),
                correlation_id=call.call_id,
            ),
            names.sessions,
            routing_key(call.call_id),
        )
