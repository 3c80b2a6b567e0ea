"""Orphans: messages from the inbox of a worker that has died, or that does not own their call."""

import dataclasses

import structlog

from consumer.broker.message import Delivery, Headers
from consumer.broker.outcome import Forward
from consumer.broker.topology import Names
from consumer.calls.cluster.membership import Presence
from consumer.calls.events import Reporter
from consumer.calls.messages.recipes import which_restored
from consumer.calls.placement.decisions import SendAgain, in_a_crash_loop
from consumer.calls.placement.placements import Placement, Placements, Term
from consumer.concurrency.expiring_dict import ExpiringDict
from schemas import headers
from schemas.events import EndReason
from schemas.ids import CallId, WorkerId
from schemas.internal import Recipe

TELL_AGAIN = 60.0
"""After how long (s) it is logged again that a worker has lost a call: it may have come back and got the call again."""

REMEMBER_LOST = 600.0
"""How long (s) it is remembered which recipes were reported lost: a broker may hold a copy back for three minutes."""

log = structlog.get_logger(__name__)


class Orphans:
    """Finds out which inbox gave a message up, and takes the call away if that worker is dead or not the owner."""

    def __init__(self, names: Names, placements: Placements, presence: Presence, reporter: Reporter) -> None:
        self._names = names
        self._placements = placements
        self._presence = presence
        self._reporter = reporter
        self._told_gone: ExpiringDict[bool] = ExpiringDict(TELL_AGAIN)
        self._lost: ExpiringDict[bool] = ExpiringDict(REMEMBER_LOST)

    async def dead_owner(
        self, delivery: Delivery, call_id: CallId, term: Term
    ) -> WorkerId | Forward | SendAgain | None:
        """Return whose inbox gave the message up: none, a dead worker's, or a live one's, to which it goes back.

        If that worker was declared dead meanwhile, the message goes to the call's new owner, if there is one. A former
        placer may have declared it dead and have sent the message on, or have placed the call elsewhere: so what is
        delivered again goes back only by the call's binding, or behind that copy.
        """
        worker = given_up_by(delivery, self._names)
        if worker is None:
            return None
        taken_away = headers.ORPHAN_OF in delivery.message.headers
        if await self._presence.lives(worker):
            if delivery.redelivered:
                return SendAgain()
            if not taken_away:
                return self._placements.to_inbox(worker, call_id, delivery.message, {headers.LATE: True})
            placed = self._placements.of(call_id)
            if placed is None or placed.owner == worker:
                log.info("placer.owner_returned", call_id=call_id, worker_id=worker)
                placement = Placement(worker, self._presence.place(worker, ()))
                return await self._placements.bind(call_id, placement, delivery.message, term, {headers.LATE: True})
        else:
            self._presence.tell_gone(worker)
        return await self._declare_dead(worker, call_id, term, for_good=taken_away)

    async def _declare_dead(
        self, worker: WorkerId, call_id: CallId, term: Term, *, for_good: bool
    ) -> WorkerId | SendAgain:
        if not for_good:  # the message comes a second time, and says so
            self._tell_gone(worker, call_id)
        await self._placements.unbind(call_id, worker, term)
        # That takes its time where a worker had many calls. One that came back before it was done has reported, and
        # may have found that the call still led there; one that comes back later finds that it does not.
        await self._presence.heard_out()
        if self._presence.alive(worker) and not for_good:
            return SendAgain()  # another may have got the call since; if nobody has, it comes back
        self._placements.forget(call_id, worker)
        return worker

    def _tell_gone(self, worker: WorkerId, call_id: CallId) -> None:
        """Log that a call's owner is gone: once for all messages of the call that its inbox gave up."""
        key = f"{worker}/{call_id}"
        if self._told_gone.get(key) is None:
            self._told_gone.set(key, True)
            log.info("placer.owner_gone", call_id=call_id, worker_id=worker)

    async def tell_lost(self, delivery: Delivery, recipe: Recipe) -> Delivery:
        """Report a worker's sessions as lost, before the recipe is sent on; returns the recipe, which says so.

        A former placer may have done it already. The event's id is that of the life, so consumers see a duplicate.
        """
        self._lost.set(_name_of(recipe), True)
        reason = EndReason.CRASH_LOOP if in_a_crash_loop(recipe) else EndReason.WORKER_GONE
        told = recipe.revision <= self._presence.told_of(recipe.worker_id)
        self._reporter.lost(recipe, reason, restored=which_restored(recipe, delivery.message.headers), told=told)
        await self._reporter.settled()
        return _marked_lost(delivery)

    def known_lost(self, delivery: Delivery, recipe: Recipe) -> Delivery:
        """Return the recipe, which says that its sessions are lost if this worker has reported them.

        A former placer that lost its link may have sent the recipe on. Then there are two, and its worker may be back.
        """
        return delivery if self._lost.get(_name_of(recipe)) is None else _marked_lost(delivery)

    async def release_disowned(self, given: Headers, call_id: CallId, term: Term) -> None:
        """Remove the bindings to a worker that says it does not own the call, if that is credible."""
        placement = self._placements.of(call_id)
        worker = disowned_by(given, placement, "" if placement is None else self._placements.mark(placement.number))
        if worker is not None:
            self._placements.forget(call_id, worker)
            await self._placements.unbind(call_id, worker, term)


def _name_of(recipe: Recipe) -> str:
    return f"{recipe.worker_id}/{recipe.revision}"


def _marked_lost(delivery: Delivery) -> Delivery:
    return dataclasses.replace(delivery, message=delivery.message.with_headers({headers.LOST: True}))


def given_up_by(delivery: Delivery, names: Names) -> WorkerId | None:
    """Return the worker whose inbox gave a message up, as the broker or the placer that forwarded it says."""
    given = delivery.message.headers
    worker = inbox_of_death(given, names)
    if worker is None and headers.ORPHAN_OF in given:
        return WorkerId(str(given[headers.ORPHAN_OF]))
    return worker


def without_former_hop(delivery: Delivery, names: Names) -> Delivery:
    """Return the delivery without the marks of its way to an inbox, if that inbox has given it up since.

    They say that no inbox was bound to the call, and one was.
    """
    given = delivery.message.headers
    if inbox_of_death(given, names) is None:
        return delivery
    kept = {name: value for name, value in given.items() if name not in (headers.RESENT, headers.ORPHAN_OF)}
    return dataclasses.replace(delivery, message=dataclasses.replace(delivery.message, headers=kept))


def inbox_of_death(given: Headers, names: Names) -> WorkerId | None:
    """Return the worker whose inbox gave a message up at the last hop, as the broker says."""
    deaths = given.get("x-death")
    for death in deaths if isinstance(deaths, list) else ():
        queue = death.get("queue") if isinstance(death, dict) else None
        if isinstance(queue, str) and (worker := names.worker_of_inbox(queue)) is not None:
            return worker
    return None


def disowned_by(given: Headers, placement: Placement | None, mark: str) -> WorkerId | None:
    """Return the worker that says in a message's headers that it does not own the call, if that is credible.

    ``placement`` is where the call was placed a moment ago, as far as is remembered, and ``mark`` names it in headers.
    """
    returned = given.get(headers.RETURNED) or given.get(headers.REFUSED)
    if returned is None:
        return None
    worker = WorkerId(str(returned))
    for_good = int(given.get(headers.RETURNS, 0)) >= headers.FOR_GOOD
    if placement is None and not for_good:
        return None  # a former placer may have placed the call there since
    if placement is not None and placement.owner == worker:
        if headers.RETURNED in given and not for_good:
            return None  # it may have come through the binding before that which was placed
        # What was returned without naming a placement came through a binding, and maybe before this placement.
        believed = (mark,) if headers.RETURNED in given else (mark, "")
        if given.get(headers.DISOWNED, mark) not in believed:
            return None  # it says nothing of this placement: the call was placed there since, or it knew of none
    return worker
