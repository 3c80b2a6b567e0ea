"""Mistakes in how one message is handled: its marks, what has to be safe first, and what is known when it comes.

``scripts/test simulate --mutations`` makes them like those of ``mutations``.
"""

import asyncio
import dataclasses
from types import SimpleNamespace
from typing import Any

from consumer.broker import outbox
from consumer.broker.errors import BrokerError
from consumer.calls.cluster.ended_calls import Endings
from consumer.calls.cluster.shared_changes import SharedChanges
from consumer.calls.messages import forwarding
from consumer.calls.owned_call import OwnedCall
from consumer.calls.ownership import recovery, upkeep
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.calls.ownership.recovery import Recovery
from consumer.calls.placement.orphans import Orphans
from consumer.worker.consumers import Consumers
from schemas import headers
from tests.simulation.mutating import Put, mutation, nothing

# Marks of one hop.


@mutation("a message keeps the mark that it was sent again")
def _resent_kept(put: Put) -> None:
    put(forwarding, "_MARKS", forwarding._MARKS - {headers.RESENT})


@mutation("a message keeps the mark of its placement")
def _placement_kept(put: Put) -> None:
    put(forwarding, "_MARKS", forwarding._MARKS - {headers.PLACEMENT})


@mutation("a message keeps the mark that it came late")
def _late_kept(put: Put) -> None:
    put(forwarding, "_MARKS", forwarding._MARKS - {headers.LATE})


# What is told lost.


@mutation("a recipe goes on before its sessions are told lost")
def _lost_unconfirmed(put: Put) -> None:
    init = Orphans.__init__

    def unsettled(self: Any, names: Any, placements: Any, presence: Any, reporter: Any) -> None:
        init(self, names, placements, presence, _Unsettled(reporter))  # type: ignore[arg-type]

    put(Orphans, "__init__", unsettled)


class _Unsettled:
    """A reporter that waits for no confirmation."""

    settled = staticmethod(nothing)

    def __init__(self, reporter: Any) -> None:
        self.lost = reporter.lost


# Ends.


@mutation("what is heard counts, though something newer is known")
def _older_counts(put: Put) -> None:
    def hear(self: Any, told: Any) -> None:
        for key, change in told:
            self._changes.set(key, change)

    put(SharedChanges, "hear", hear)


@mutation("a newcomer hears no ends")
def _newcomer_hears_nothing(put: Put) -> None:
    put(Endings, "tell_newcomer", lambda *_: None)


# Events.


@mutation("what is confirmed behind a failure counts for what failed")
def _counted_behind(put: Put) -> None:
    async def gather(*publications: Any, return_exceptions: bool) -> list[Any]:
        results = await asyncio.gather(*publications, return_exceptions=return_exceptions)
        return sorted(results, key=lambda one: isinstance(one, BaseException))  # what failed comes last

    put(outbox, "asyncio", SimpleNamespace(**{**vars(asyncio), "gather": gather}))


@mutation("a worker says that it has told of one recipe more")
def _told_one_more(put: Put) -> None:
    told = vars(Recovery)["told"].fget
    put(Recovery, "told", property(lambda self: told(self) + 1))


# Recipes.


@mutation("a new life is not written in a recipe")
def _life_unwritten(put: Put) -> None:
    renew_lives = OwnedCall.renew_lives

    def renewed(self: Any, lives: Any) -> None:
        was = self.recipe.dirty
        renew_lives(self, lives)
        self.recipe.dirty = was

    put(OwnedCall, "renew_lives", renewed)


@mutation("an outdated recipe is held")
def _outdated_held(put: Put) -> None:
    recipe_arrived = OwnedCalls.recipe_arrived

    def held(self: Any, delivery: Any, recipe: Any) -> Any:
        freed = recipe_arrived(self, delivery, recipe)
        call = self.calls.get(recipe.call_id)
        return call.recipe.hold(delivery, recipe.revision) if freed is delivery and call and call.sessions else freed

    put(OwnedCalls, "recipe_arrived", held)


@mutation("who is given its call again waits for its recipes")
def _waits_anew(put: Put) -> None:
    put(OwnedCalls, "own_anew", lambda self, call_id, placement: self.own(call_id).begin(placement))


@mutation("a recipe that does not come back is waited for")
def _waited_for(put: Put) -> None:
    look_at = upkeep.look_at
    put(recovery, "look_at", lambda *args, **more: dataclasses.replace(look_at(*args, **more), recipe_missing=False))


# Answers, questions, and leaving.


@mutation("answers are not kept")
def _no_answers(put: Put) -> None:
    upkeep_of = upkeep.upkeep_of
    put(recovery, "upkeep_of", lambda call, **more: upkeep_of(call, **{**more, "has_answers": False}))


@mutation("who leaves deletes its inbox with what is in it")
def _inbox_deleted_full(put: Put) -> None:
    async def delete(self: Any) -> None:
        control = self._control
        if control is None:
            return
        try:
            await control.cancel(self._inbox_consumer)
            await control.delete_queue(self._owned_calls.inbox)
        except BrokerError:
            pass

    put(Consumers, "_delete_if_empty", delete)


@mutation("an answer over an older link is believed")
def _older_answer(put: Put) -> None:
    put(OwnedCalls, "asks", lambda *_: True)


@mutation("an answer removes the doubts of a later link")
def _doubts_removed(put: Put) -> None:
    still_ours = Recovery.still_ours

    async def answered(self: Any, call: Any) -> bool:
        was_in_doubt = await still_ours(self, call)
        call.check.in_doubt = False
        return was_in_doubt

    put(Recovery, "still_ours", answered)


@mutation("a call is released without its hand-over")
def _not_handed_over(put: Put) -> None:
    keep = Recovery.keep

    async def kept(self: Any, call_id: Any) -> None:
        if (call := self._owned_calls.calls.get(call_id)) is not None:
            call.hand_over = None
        await keep(self, call_id)

    put(Recovery, "keep", kept)
