"""The calls that a worker owns, the bindings that lead to them, and the recipes that outlive the worker."""

import asyncio
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from consumer.broker.channel import Channel
from consumer.broker.errors import BrokerError
from consumer.broker.message import CALL_HEADER, Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Binding, Names
from consumer.calls.events import Reporter
from consumer.calls.messages.recipes import opening_header, restored_header
from consumer.calls.owned_call import CallSession, LifeEvent, OwnedCall
from consumer.calls.ownership.kept_metadata import weight_of
from consumer.calls.requests.idempotency import AnswerWindows
from consumer.concurrency.expiring_dict import ExpiringDict
from schemas import headers
from schemas.ids import CallId, WorkerId, routing_key
from schemas.internal import MAX_RECIPE, OwnerCheck, Recipe, SessionRecipe

log = structlog.get_logger(__name__)

RETRY_DELAY = 0.2

TRAVELS = 600.0
"""How long (s) a recipe may take from a lost link to a placer and back, if the broker was away as well."""


@dataclass(slots=True)
class _NamedEvent:
    """An event of a call, and the revisions of the recipes that name its life."""

    call_id: CallId
    naming: set[int]
    one: LifeEvent


class OwnedCalls:
    """The calls of this worker, with their bindings and recipes in the broker."""

    def __init__(
        self, worker_id: WorkerId, names: Names, publisher: Publisher, reporter: Reporter, answers: AnswerWindows
    ) -> None:
        self._worker_id = worker_id
        self._names = names
        self._publisher = publisher
        self._reporter = reporter
        self._answers = answers
        self.calls: dict[CallId, OwnedCall] = {}
        self.leaving = False
        """Whether the worker leaves: it opens nothing more, and keeps no call for its answers."""
        self.leaked: set[CallId] = set()
        """Calls that are not ours any more, but whose binding could not be removed."""
        self._revisions = itertools.count(1)  # no two recipes of a worker are mistaken for each other
        self._left_to_placer: ExpiringDict[list[_NamedEvent]] = ExpiringDict(TRAVELS)
        """Events that a placer reports if it gets a recipe that names the life. We report them if we get all these."""
        self._reported: list[_NamedEvent] = []
        """Events that we report of released calls. If the link is lost, those without a confirm are left again."""
        self._channel: Channel | None = None
        self._requests_queue = ""

    @property
    def inbox(self) -> str:
        """The name of this worker's inbox."""
        return self._names.inbox(self._worker_id)

    def attach(self, channel: Channel, requests_queue: str) -> None:
        """Use the channel and the requests queue of a new link."""
        self._channel = channel
        self._requests_queue = requests_queue

    def detach(self) -> None:
        """Note that the link is lost. The requests queue and its bindings are gone; the broker has the recipes back.

        This is called for a link that could not be attached, too. Recipes that were never sent wait for the next one.
        """
        self._channel = None
        calls = list(self.calls.values())
        # An end that no recipe names is ours to report: nobody else knows of that life.
        ends = {
            one.event.id for call in calls for one in call.events.sent if one.is_end and call.recipe.names(one.life)
        }
        written = {self._recipe_id(revision) for call in calls for revision in call.recipe.lives}
        waiting = self._reporter.never_sent(written)
        taken_back = self._reporter.take_back(ends | written - waiting)
        unsent = [
            call.recipe.unsent({one for one in call.recipe.away if self._recipe_id(one) in taken_back})
            for call in calls
        ]
        # Every other ``created`` keeps its place between those of other recipes: ``told`` counts on that.
        begun = {
            one.event.id
            for call, awaited in zip(calls, unsent, strict=True)
            for one in call.events.sent
            if one.life in awaited and not one.is_end
        }
        taken_back |= self._reporter.take_back(begun)
        for call, awaited in zip(calls, unsent, strict=True):
            call.events.took_back(taken_back, {session.life: session for session in call.sessions.values()})
            if awaited:
                self._leave_unsent(call, awaited)
            call.link_lost([one for one in call.recipe.lives if self._recipe_id(one) in waiting])
        self._leave_again()

    def _leave_again(self) -> None:
        """Leave the events of released calls to the placer again that RabbitMQ may not have."""
        reported, self._reported = self._reported, []
        taken_back = self._reporter.take_back({known.one.event.id for known in reported})
        for known in reported:
            if known.one.event.id in taken_back:
                left = self._left_to_placer.get(known.call_id) or []
                self._left_to_placer.set(known.call_id, [*left, known])

    @property
    def attached(self) -> bool:
        """Whether there is a link."""
        return self._channel is not None

    @property
    def pending_events(self) -> int:
        """How many events wait until it is known which worker reports them."""
        return sum(len(call.events.pending) for call in self.calls.values())

    @property
    def needs_recipes(self) -> bool:
        """Return whether recipes of ours are needed: a call is not handed over, or an end is not reported.

        RabbitMQ does not count such a recipe as a ready message of the inbox if we hold it, or if it waits to be
        dead-lettered.
        """
        return bool(self.calls or self._left_to_placer.items())

    @property
    def left_from(self) -> float:
        """Return the lowest revision of a recipe whose events are left to the worker that gets it.

        Or which names a life whose ``created`` RabbitMQ may not have.
        """
        left = (min(one.naming) for _, left in self._left_to_placer.items() for one in left)
        reported = (min(known.naming) for known in self._reported if not known.one.is_end)
        unheard = (
            call.recipe.first_naming(one.life)
            for call in self.calls.values()
            for one in itertools.chain(call.events.pending, call.events.sent)
            if not one.is_end
        )
        return min(itertools.chain(left, reported, unheard), default=math.inf)

    def own(self, call_id: CallId) -> OwnedCall:
        """Own a call that the placer has bound."""
        if call_id not in self.calls:
            self.calls[call_id] = OwnedCall(call_id)
        return self.calls[call_id]

    def own_anew(self, call_id: CallId, placement: str) -> None:
        """Own a call that a placer has given to this worker. If it had the call, it has counted as dead since.

        The recipes that RabbitMQ has had back from it are a placer's then, and are not waited for.
        """
        call = self.own(call_id)
        if call.begin(placement) and call.recipe.given_back:
            self.stop_waiting(call)

    def is_ours(self, call: OwnedCall) -> bool:
        """Return whether the call is still owned, and was not released or taken again meanwhile."""
        return self.calls.get(call.call_id) is call

    def _requests_binding(self, call: OwnedCall, queue: str) -> Binding:
        return Binding(self._names.requests, queue, routing_key(call.call_id))

    async def bind_requests(self, call: OwnedCall) -> None:
        """Bind our requests queue to the call. Without a link this does nothing, because ``attach`` binds it later."""
        queue = self._requests_queue
        if self._channel is not None and call.bound_to != queue:
            await self._channel.bind(self._requests_binding(call, queue))
            call.bound_to = queue

    async def release(self, call: OwnedCall) -> None:
        """Release a call: later messages for it reach the placer, behind its hand-over. Idempotent.

        Raises:
            BrokerError: RabbitMQ has not confirmed the hand-over. We keep the call, and hold its recipe.
        """
        if call.call_id not in self.calls:
            return
        if call.hand_over is not None:
            await self._publisher.publish(call.hand_over, self._names.unowned, routing_key(call.call_id))
        del self.calls[call.call_id]
        self._let_go(call)
        self.leave_to_placer(call)
        for one in call.events.sent:
            if one.is_end and (held := call.recipe.holding(one.life)):
                self._reported.append(_NamedEvent(call.call_id, held, one))
        await self.drop_recipe(call)
        try:
            await self._unbind(call)
        except BrokerError:
            self.leaked.add(call.call_id)

    def _let_go(self, call: OwnedCall) -> None:
        call.tenure.resume()
        self._answers.forget(call)

    def let_all_go(self) -> None:
        """Stop the timers of all calls and release their reservations, because the worker stops."""
        for call in self.calls.values():
            self._let_go(call)

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
        """Remove the binding of a call that this worker still does not own."""
        if self._channel is not None and call_id in self.leaked:
            self.leaked.discard(call_id)
            if call_id not in self.calls:
                await self._channel.unbind(self._inbox_binding(call_id))

    def _inbox_binding(self, call_id: CallId) -> Binding:
        return Binding(self._names.sessions, self.inbox, routing_key(call_id))

    # Recipes.

    def write_recipe(self, call: OwnedCall) -> None:
        """Put the recipe into the inbox. Once the broker has confirmed it, the call survives this worker."""
        self._write(call, list(call.sessions.values()))

    def _write(self, call: OwnedCall, sessions: list[CallSession]) -> None:
        lives = frozenset(session.life for session in sessions)
        call.recipe.written(next(self._revisions), asyncio.get_running_loop().time(), lives)
        call.events.published()
        self._reporter.keep(self._message_of(call, sessions), self.inbox)

    def _name_ended(self, call: OwnedCall) -> None:
        """Write a recipe if a session has ended before its ``created`` was published, and no recipe names it.

        So its end survives this worker: its events wait for this recipe. It names all whose events wait, because it
        replaces older recipes, and leaves out the open sessions whose ``created`` comes behind these events.
        """
        ended = {one.life: one.ended for one in call.events.pending if one.ended is not None}
        untold = {one.life for one in call.events.pending if not one.is_end}
        if all(call.recipe.names(life) for life in untold & ended.keys()):
            return
        told = [one for one in call.sessions.values() if one not in call.events.untold]
        sessions = told + list(ended.values())
        if sum(weight_of(one.metadata) for one in sessions) <= MAX_RECIPE:
            self._write(call, sessions)
            call.recipe.outdate()

    def handover_message(self, call: OwnedCall, sessions: list[CallSession]) -> Message:
        """Return a recipe of the call for another worker. The one in the inbox stays."""
        return self._message_of(call, sessions, next(self._revisions))

    def _message_of(self, call: OwnedCall, sessions: list[CallSession], revision: int | None = None) -> Message:
        recipe = self.recipe(call, sessions, revision)
        restored = restored_header(one.restored for one in sessions)
        return Message(
            body=recipe.model_dump_json().encode(),
            type=Recipe.type,
            message_id=self._recipe_id(recipe.revision),
            headers={CALL_HEADER: call.call_id} | opening_header(call.opened) | restored,
        )

    def _recipe_id(self, revision: int) -> str:
        return f"{self._worker_id}/{revision}"

    def recipe(self, call: OwnedCall, sessions: Iterable[CallSession], revision: int | None = None) -> Recipe:
        """Return the call's present recipe, with the next revision or the given one."""
        return Recipe(
            call_id=call.call_id,
            worker_id=self._worker_id,
            revision=call.recipe.revision if revision is None else revision,
            sessions=[
                SessionRecipe(
                    session_id=session.session_id,
                    service_name=session.service_name,
                    created_at=session.created_at,
                    last_accessed=session.last_accessed,
                    timeout=session.timeout,
                    metadata=session.metadata,
                    life=session.life,
                    restores=call.restoration.deaths,
                )
                for session in sessions
            ],
        )

    def recipe_arrived(self, delivery: Delivery, recipe: Recipe) -> Delivery | None:
        """Keep a recipe of ours that came back. Return the older delivery, which can be acknowledged.

        If its sessions were reported as lost, those that are still open begin a new life.
        """
        told = headers.LOST in delivery.message.headers
        self._take_left_to_placer(recipe, told=told)
        call = self.calls.get(recipe.call_id)
        if call is None:
            return delivery
        if told:
            lives = frozenset(one.life for one in recipe.sessions)
            call.events.drop_told(lives)
            call.renew_lives(lives)
        call.recipe.came_back(delivery, recipe.revision)
        needed = call.sessions or call.events.pending or call.events.unconfirmed
        if not needed or recipe.revision != call.recipe.revision:
            return delivery
        return call.recipe.hold(delivery, recipe.revision)

    async def drop_recipe(self, call: OwnedCall) -> None:
        """Acknowledge the recipe, so that the call is not restored. One that is on its way has an older revision."""
        held = call.recipe.dropped(next(self._revisions))
        if held is None:
            return
        if call.events.unconfirmed:
            await self.free(held)
        else:
            await held.ack()
            call.recipe.acknowledged(held)

    async def free(self, recipe: Delivery) -> None:
        """Acknowledge an unneeded recipe, once RabbitMQ has confirmed what replaces it.

        That is a newer recipe, or the ends of the sessions that it names. Until then it protects them against our
        death.
        """
        channel = self._channel
        while channel is not None and self._channel is channel:
            try:
                await self._reporter.settled()
                break
            except BrokerError:
                await asyncio.sleep(RETRY_DELAY)
        if channel is None or self._channel is not channel:
            return  # we wait for RabbitMQ to return it; a link that counts as lost could still carry this
        await recipe.ack()
        acknowledged = recipe.message.message_id
        for known in self._reported:
            known.naming = {revision for revision in known.naming if self._recipe_id(revision) != acknowledged}
        self._reported = [known for known in self._reported if known.naming]
        if (call := self.calls.get(CallId(str(recipe.message.headers[CALL_HEADER])))) is not None:
            call.recipe.acknowledged(recipe)

    def to_renew(self, now: float) -> list[OwnedCall]:
        """Return the calls with an outdated recipe, or one that is soon to be acknowledged, or with a hand-over."""
        for call in self.calls.values():
            if call.restoration.outlived(now) or (call.sessions and call.recipe.is_old(now)):
                call.recipe.outdate()
        return [call for call in self.calls.values() if (call.recipe.dirty and call.sessions) or call.hand_over]

    # Events that wait until it is known who tells them.

    async def tell_ends(self, call: OwnedCall) -> None:
        """Publish the waiting events if this worker must report them.

        RabbitMQ must just have proved that we hold the recipes.

        It may have closed the connection, and given a recipe to the placer, long before we notice.

        Raises:
            BrokerError: the link is lost, and the recipe may be a placer's.
        """
        if call.events.pending and call.may_tell and self._channel is not None:
            await self._channel.proven()
            self._name_ended(call)
            if call.may_tell:
                for one in call.events.take_pending():
                    self._send(call, one)

    def tell_created(self, call: OwnedCall) -> None:
        """Publish ``created`` of the sessions whose recipe is written, right behind the recipe."""
        for session in call.events.take_untold():
            self._send(call, LifeEvent(session.life, self._reporter.created(session)))

    def _send(self, call: OwnedCall, one: LifeEvent) -> None:
        call.events.send(one)
        self._reporter.publish(one.event)

    async def confirmed(self, call: OwnedCall) -> None:
        """Wait until RabbitMQ has confirmed the call's publications.

        Raises:
            BrokerError: the link is lost. Unconfirmed publications wait for the next one.
        """
        if call.events.unconfirmed:
            events = len(call.events.sent)
            await self._reporter.settled()
            call.events.confirmed(events)

    def leave_to_placer(self, call: OwnedCall) -> None:
        """Leave the report of the ends to the placer, because it has the recipe.

        If the recipe comes back to us, the placer has reported nothing, and we do. We always report events of lives
        that no absent recipe names.
        """
        self._name_ended(call)
        left = self._left_to_placer.get(call.call_id) or []
        for one in call.events.take_pending():
            if awaited := call.recipe.naming(one.life):
                left.append(_NamedEvent(call.call_id, awaited, one))
            else:
                self._send(call, one)
        if left:
            self._left_to_placer.set(call.call_id, left)

    def stop_waiting(self, call: OwnedCall) -> None:
        """Stop waiting for the recipes of an owned call: treat their sessions as reported lost.

        A placer may have reported them and dropped the recipe, or the broker keeps the recipe for minutes. In both
        cases the sessions go on with a new life, and the worker that gets the recipe reports the end of the old one.
        """
        lives = frozenset(session.life for session in call.sessions.values() if call.recipe.naming(session.life))
        for session in call.sessions.values():
            if session.life in lives:
                if session in call.events.untold:
                    call.events.postpone(session.life, self._reporter.created(session))
                call.events.postpone(session.life, self._reporter.lost_life(session))
        self.leave_to_placer(call)
        call.renew_lives(lives)
        call.recipe.stop_waiting()

    def _leave_unsent(self, call: OwnedCall, awaited: dict[str, set[int]]) -> None:
        """Begin new lives where RabbitMQ may never have received the only recipes that name the old ones.

        A recipe that is sent again might exist twice, and a placer could hold one while we hold the other. The worker
        that gets the old recipe reports its lives. If it never arrived, no other worker knows these lives, nor
        the sessions that have ended: RabbitMQ still has the messages that opened them.
        """
        unheard = [one for one in call.events.pending if one.life in awaited]
        call.events.drop_told(frozenset(awaited))
        for session in call.sessions.values():
            if session.life in awaited:
                unheard.append(LifeEvent(session.life, self._reporter.created(session)))
                unheard.append(LifeEvent(session.life, self._reporter.lost_life(session)))
        call.renew_lives(frozenset(awaited))
        if unheard:
            left = self._left_to_placer.get(call.call_id) or []
            left += [_NamedEvent(call.call_id, set(awaited[one.life]), one) for one in unheard]
            self._left_to_placer.set(call.call_id, left)

    def _take_left_to_placer(self, recipe: Recipe, *, told: bool) -> None:
        """Report the events left to the placer, if it has not reported them and no other recipe can make it do so."""
        if (left := self._left_to_placer.get(recipe.call_id)) is None:
            return
        lives = {one.life for one in recipe.sessions}
        kept = []
        for waiting in left:
            waiting.naming.discard(recipe.revision)
            if told and waiting.one.life in lives:
                continue
            if waiting.naming:
                kept.append(waiting)
            else:
                self._reporter.publish(waiting.one.event)
                self._reported.append(_NamedEvent(recipe.call_id, {recipe.revision}, waiting.one))
        if kept:
            self._left_to_placer.set(recipe.call_id, kept)
        else:
            self._left_to_placer.drop(recipe.call_id)

    async def check(self, call: OwnedCall) -> None:
        """Ask, with the call's routing key, which worker owns it. The answer comes to the worker's queue."""
        question = OwnerCheck(call_id=call.call_id, worker_id=self._worker_id, revision=call.recipe.revision)
        await self._publisher.publish(
            Message(
                body=question.model_dump_json().encode(),
                type=OwnerCheck.type,
                headers={CALL_HEADER: call.call_id},
                reply_to=self.answers_to,
                correlation_id=call.call_id,
            ),
            self._names.sessions,
            routing_key(call.call_id),
        )

    @property
    def answers_to(self) -> str:
        """The name of the queue in which the answers to our owner checks come, which belongs to the present link."""
        return self._names.worker(self._worker_id, self._requests_queue.rpartition(".")[2])

    def asks(self, delivery: Delivery) -> bool:
        """Return whether an owner check of ours was sent over the present link.

        One that was sent over an older link may have reached our inbox before a placer took the call away.
        """
        return self.attached and delivery.message.reply_to == self.answers_to
