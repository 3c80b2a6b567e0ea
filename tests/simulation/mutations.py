"""Mistakes in the protocol, each made on purpose by one function of the product: the simulation has to find them.

``scripts/test simulate --mutations`` makes one after the other and says how many seeds it took; ``findings`` has where.
Some of them are defects that the product had once.
"""

import dataclasses
import time
from math import inf
from typing import Any

from consumer.broker.message import Delivery
from consumer.broker.outcome import Done
from consumer.broker.supervisor import Supervisor
from consumer.broker.topology import Names
from consumer.calls.cluster import membership
from consumer.calls.cluster.ended_calls import Endings, OpenedBy
from consumer.calls.cluster.membership import Presence
from consumer.calls.cluster.shared_changes import Change, SharedChanges
from consumer.calls.events import Reporter
from consumer.calls.intake import Intake
from consumer.calls.messages.recipes import opened_by
from consumer.calls.owned_call import EventState, OwnedCall, RecipeState
from consumer.calls.ownership import lifecycle, owned_calls
from consumer.calls.ownership.call_requests import CallRequests
from consumer.calls.ownership.closing import Closing
from consumer.calls.ownership.early_messages import EarlyMessages
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.calls.ownership.recovery import Recovery
from consumer.calls.placement import orphans, placer
from consumer.calls.placement.orphans import Orphans
from consumer.calls.placement.placements import Placement, Placements
from consumer.calls.placement.placer import Placer
from consumer.calls.requests.idempotency import Answers, Claim, Identity
from schemas import headers
from schemas.events import EndReason
from schemas.internal import EndedCalls
from schemas.replies import EndResult, succeeded
from tests.simulation.mutating import Put, mutation, nothing

# Defects that were found last.


@mutation("a worker is buried while it comes back")
def _buried(put: Put) -> None:
    async def declare_dead(self: Any, worker: Any, call_id: Any, term: Any, *, for_good: bool) -> Any:
        await self._placements.unbind(call_id, worker, term)
        self._placements.forget(call_id, worker)
        return worker

    put(Orphans, "_declare_dead", declare_dead)


@mutation("a recipe behind a command restores nothing")
def _behind_a_command(put: Put) -> None:
    put(OwnedCall, "is_news", lambda self, recipe, *, within: self.restoration.allows(recipe) and not self.sessions)


@mutation("what is lost is not told as created")
def _lost_without_created(put: Put) -> None:
    lost = Reporter.lost
    put(Reporter, "lost", lambda *args, **more: lost(*args, **{**more, "told": True}))


@mutation("a standstill is not noticed")
def _standstill(put: Put) -> None:
    init = Supervisor.__init__
    put(Supervisor, "__init__", lambda self, *args, **more: init(self, *args, **{**more, "standstill": inf}))


@mutation("a call is given back to a worker beside its new owner")
def _given_back(put: Put) -> None:
    async def dead_owner(self: Any, delivery: Any, call_id: Any, term: Any) -> Any:
        worker = orphans.given_up_by(delivery, self._names)
        if worker is None:
            return None
        if await self._presence.lives(worker):
            placement = Placement(worker, self._presence.place(worker, ()))
            return await self._placements.bind(call_id, placement, delivery.message, term, {headers.LATE: True})
        return await self._declare_dead(worker, call_id, term, for_good=headers.ORPHAN_OF in delivery.message.headers)

    put(Orphans, "dead_owner", dead_owner)


@mutation("a placer places what a dead worker had, without asking")
def _orphan_placed(put: Put) -> None:
    def as_resent(delivery: Delivery, names: Names) -> Delivery:
        of_this_hop = orphans.inbox_of_death(delivery.message.headers, names) is not None
        delivery = orphans.without_former_hop(delivery, names)
        marks = {headers.RESENT: True} if of_this_hop else {}
        return dataclasses.replace(delivery, message=delivery.message.with_headers(marks))

    put(placer, "without_former_hop", as_resent)


@mutation("whatever was returned is believed")
def _believed(put: Put) -> None:
    put(
        orphans,
        "disowned_by",
        lambda given, placement, mark: given.get(headers.RETURNED) or given.get(headers.REFUSED),
    )


# Ends.


@mutation("the placer's tombstone left out")
def _no_tombstone_at_the_placer(put: Put) -> None:
    async def end(*_: Any) -> Any:
        return Done(succeeded(EndResult(closed=[]).model_dump()), what="tombstone")

    put(Placer, "_end", end)


@mutation("the owner's tombstone left out")
def _no_tombstone_at_the_owner(put: Put) -> None:
    put(Closing, "end", lambda self, call: self.close_all(call, EndReason.CALL_ENDED))


@mutation("an end is told to nobody")
def _untold_end(put: Put) -> None:
    put(SharedChanges, "_tell", nothing)


@mutation("an end is acknowledged before its owner has answered")
def _end_not_awaited(put: Put) -> None:
    pass_on = Intake._pass_on

    async def at_once(self: Any, delivery: Any, event: Any) -> Any:
        await delivery.ack()
        return await pass_on(self, delivery, event)

    put(Intake, "_pass_on", at_once)


@mutation("a call event is as new as its translation")
def _new_by_translation(put: Put) -> None:
    pass_on = Intake._pass_on

    async def as_new(self: Any, delivery: Any, event: Any) -> Any:
        if not delivery.redelivered:
            message = dataclasses.replace(delivery.message, timestamp=None)
            delivery = dataclasses.replace(delivery, message=message)
        return await pass_on(self, delivery, event)

    put(Intake, "_pass_on", as_new)


# Bindings.


@mutation("a dead worker's binding stays")
def _no_unbind(put: Put) -> None:
    put(Placements, "unbind", nothing)


@mutation("a released call's binding stays")
def _not_released(put: Put) -> None:
    put(OwnedCalls, "_unbind", nothing)


@mutation("what comes through a new binding is not held back")
def _early(put: Put) -> None:
    put(EarlyMessages, "wait", lambda self, call_id, go_on: go_on())


@mutation("a placer places what another had before, without asking")
def _not_sent_again(put: Put) -> None:
    place = Placer._place
    put(
        Placer,
        "_place",
        lambda self, delivery, *rest: place(self, dataclasses.replace(delivery, redelivered=False), *rest),
    )


@mutation("who was away does not ask for its calls")
def _not_asked(put: Put) -> None:
    put(Recovery, "_check_owner", nothing)


@mutation("who was away does not give up what is another's")
def _not_given_up(put: Put) -> None:
    put(Closing, "yield_to", lambda *_: None)


@mutation("the dead are not missed")
def _not_missed(put: Put) -> None:
    put(Presence, "missed", lambda _: None)


@mutation("a placer does not ask whether an owner lives")
def _owner_not_asked(put: Put) -> None:
    async def lives(self: Any, worker_id: Any) -> bool:
        await self.has_listened(self.grace)
        await self.heard_out()
        return bool(self.alive(worker_id))

    put(Presence, "lives", lives)


# Recipes and events.


@mutation("a recipe is acknowledged when it comes")
def _recipe_not_held(put: Put) -> None:
    arrived = OwnedCalls.recipe_arrived
    put(OwnedCalls, "recipe_arrived", lambda self, delivery, recipe: arrived(self, delivery, recipe) or delivery)


@mutation("a recipe goes before the end is told")
def _dropped_early(put: Put) -> None:
    async def drop_recipe(self: Any, call: Any) -> None:
        if (held := call.recipe.dropped(next(self._revisions))) is not None:
            await held.ack()
            call.recipe.acknowledged(held)

    put(Recovery, "_confirmed", nothing)
    put(OwnedCalls, "drop_recipe", drop_recipe)


@mutation("a recipe is never taken away")
def _never_dropped(put: Put) -> None:
    put(OwnedCalls, "drop_recipe", nothing)


@mutation("who was cut off tells its ends at once")
def _tells_at_once(put: Put) -> None:
    put(OwnedCall, "may_tell", property(lambda _: True))


@mutation("a recipe that RabbitMQ has back is not waited for")
def _not_waited_for(put: Put) -> None:
    put(RecipeState, "link_lost", lambda self, _: setattr(self, "held", None))


@mutation("an end is told without asking RabbitMQ first")
def _told_unasked(put: Put) -> None:
    async def tell_ends(self: Any, call: Any) -> None:
        if call.may_tell:
            for one in call.events.take_pending():
                self._send(call, one)

    put(OwnedCalls, "tell_ends", tell_ends)


@mutation("a recipe that was written is as good as held")
def _held_when_written(put: Put) -> None:
    put(RecipeState, "away", property(lambda self: self.given_back))


@mutation("a recipe that RabbitMQ has not confirmed is sent again")
def _sent_again(put: Put) -> None:
    take_back = Reporter.take_back
    put(Reporter, "take_back", lambda self, ids: take_back(self, {one for one in ids if "/" not in one}))


@mutation("who does not get its recipe back tells its ends")
def _told_without_its_recipe(put: Put) -> None:
    put(OwnedCalls, "stop_waiting", lambda _, call: call.recipe.stop_waiting())


@mutation("what was told lost goes on with its life")
def _not_renewed(put: Put) -> None:
    put(OwnedCall, "renew_lives", lambda *_: None)
    put(EventState, "drop_told", lambda *_: None)


@mutation("created is told before the recipe is written")
def _created_first(put: Put) -> None:
    write = OwnedCalls.write_recipe

    def write_recipe(self: Any, call: Any) -> None:
        for session in call.events.take_untold():
            self._reporter.publish(self._reporter.created(session))
        write(self, call)

    put(OwnedCalls, "write_recipe", write_recipe)


@mutation("what ends before its recipe is told without one")
def _untold_without_recipe(put: Put) -> None:
    put(OwnedCalls, "_name_ended", lambda *_: None)


@mutation("who sends a recipe on is taken to have told of its sessions")
def _taken_for_told(put: Put) -> None:
    put(placer, "is_untold", lambda *_: False)


@mutation("an older recipe is acknowledged before a newer one is written")
def _freed_early(put: Put) -> None:
    put(OwnedCalls, "free", lambda _, recipe: recipe.ack())


@mutation("who leaves and holds no recipe deletes its inbox")
def _inbox_deleted(put: Put) -> None:
    def held(self: Any) -> bool:
        return any(call.recipe.held is not None for call in self.calls.values())

    put(OwnedCalls, "needs_recipes", property(held))


@mutation("two ends are told of each life")
def _told_twice(put: Put) -> None:
    ended = Reporter.ended

    def two(self: Any, session: Any, reason: Any, details: Any) -> Any:
        self.publish(ended(self, session, reason, details))
        return ended(self, session, EndReason.IDLE, details)

    put(Reporter, "ended", two)


@mutation("an owner acknowledges what opens nothing before its rejection is told")
def _owner_rejects_unconfirmed(put: Put) -> None:
    put(EventState, "published_rejection", lambda _: None)


@mutation("a placer acknowledges what opens nothing before its rejection is told")
def _placer_rejects_unconfirmed(put: Put) -> None:
    put(Placer, "_rejection_confirmed", nothing)


# Tool calls.


@mutation("a tool call is acknowledged after it was executed")
def _acknowledged_late(put: Put) -> None:
    take = CallRequests.take

    async def late(self: Any, delivery: Any, call_id: Any, request: Any) -> Any:
        async def keep(*, requeue: bool | None) -> None:
            """Settle nothing yet."""

        try:
            return await take(self, dataclasses.replace(delivery, settle=keep), call_id, request)
        finally:
            await delivery.ack()

    put(CallRequests, "take", late)


@mutation("a tool call that comes again is executed again")
def _executed_again(put: Put) -> None:
    run = CallRequests._run

    async def again(self: Any, delivery: Any, call_id: Any, request: Any) -> Any:
        given = {name: value for name, value in delivery.message.headers.items() if name != headers.LATE}
        message = dataclasses.replace(delivery.message, headers=given)
        return await run(self, dataclasses.replace(delivery, message=message, redelivered=False), call_id, request)

    put(CallRequests, "_run", again)

    place = Placer._place

    async def placed(self: Any, delivery: Any, *rest: Any) -> Any:
        given = {name: value for name, value in delivery.message.headers.items() if name != headers.LATE}
        message = dataclasses.replace(delivery.message, headers=given)
        return await place(self, dataclasses.replace(delivery, message=message), *rest)

    put(Placer, "_place", placed)


@mutation("a placer does with a tool call what it does with other messages")
def _no_tool_calls_at_the_placer(put: Put) -> None:
    put(placer, "ToolsCall", type("NoToolsCall", (), {}))


@mutation("a placer passes a tool call on that another had")
def _passed_on_again(put: Put) -> None:
    _no_tool_calls_at_the_placer(put)
    run = CallRequests._run

    async def again(self: Any, delivery: Any, call_id: Any, request: Any) -> Any:
        given = {name: value for name, value in delivery.message.headers.items() if name != headers.LATE}
        message = dataclasses.replace(delivery.message, headers=given)
        return await run(self, dataclasses.replace(delivery, message=message), call_id, request)

    put(CallRequests, "_run", again)


@mutation("an idempotency key is not remembered")
def _no_key(put: Put) -> None:
    claim = Answers.claim

    def forgetful(self: Any, key: str, identity: Identity) -> Claim:
        return claim(self, "", identity)

    put(Answers, "claim", forgetful)


@mutation("an end that is heard of late closes nothing")
def _heard_late(put: Put) -> None:
    put(OwnedCall, "opened", property(lambda self: OpenedBy(self.owned_since), lambda _self, _opened: None))


@mutation("what was closed by command comes back")
def _closed_comes_back(put: Put) -> None:
    put(Endings, "was_closed", lambda *_: False)


@mutation("who is back reports no ends")
def _ends_kept(put: Put) -> None:
    put(Endings, "tell_again", lambda _self: None)


@mutation("a recipe does not say when its start was sent")
def _start_unknown(put: Put) -> None:
    for module in (placer, lifecycle):
        put(module, "opened_by", lambda recipe, _given: opened_by(recipe, {}))


@mutation("a recipe does not say which sessions are restored")
def _restored_unknown(put: Put) -> None:
    put(owned_calls, "restored_header", lambda _restored: {})


@mutation("an opening again counts whenever it is heard of")
def _lifted_late(put: Put) -> None:
    hear = Endings.hear

    def by_arrival(self: Any, delivery: Any) -> Any:
        closed = hear(self, delivery)
        if delivery.type != EndedCalls.type:
            return closed
        for call_id in EndedCalls.model_validate_json(delivery.message.body).lifted:
            lifted = Change(self._calls.after_the_last(call_id, time.time()), lifted=True)
            self._calls._changes.set(call_id, lifted)

        return closed

    put(Endings, "hear", by_arrival)


@mutation("who is not heard keeps its link")
def _unheard(put: Put) -> None:
    put(membership, "STANDSTILL", 1_000.0)
