"""A call of this worker: its sessions, and the state of its recipe, its events and its ownership.

A call is owned from the moment the placer has bound it to the inbox until it is released. While it has sessions, its
recipe stands unacknowledged in the inbox: should the worker die, the broker hands it back and the call is placed anew.

Each part of the state is read by everybody and changed by its own methods only.
"""

import asyncio
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum

from consumer.broker.message import Delivery, Message
from consumer.calls.cluster.ended_calls import OpenedBy
from consumer.calls.context import ToolProcess
from consumer.calls.starting import Starting
from consumer.calls.wanted import Wanted
from consumer.sessions import ProcessExit, Reservation, Session
from schemas.events import CloudEvent
from schemas.ids import CallId, ServiceName, SessionId, WorkerId
from schemas.internal import Recipe

RENEW_AFTER = 600.0
"""The age (s) at which a recipe is written anew. The broker closes a channel after 30 minutes without an ack."""

LIVED = 60.0
"""How long (s) a restored call must live before the workers that died with it are forgotten."""

CallSession = Session[ToolProcess]


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class RecipeState:
    """Which recipe the broker keeps for this call, and whether it still describes the sessions."""

    revision: int = 0
    """The number of the last recipe that was written or dropped. A recipe with another number is outdated."""
    dirty: bool = False
    """Whether the sessions differ from those in the recipe."""
    written_at: float = 0.0
    held: Delivery | None = None
    """The recipe as it was delivered to us, unacknowledged."""
    held_revision: int = 0
    given_back: set[int] = field(default_factory=set)
    """Revisions that the broker took back with a lost link, and has not delivered to us again."""
    lives: dict[int, frozenset[str]] = field(default_factory=dict)
    """The lives in each recipe that the broker may still have, by revision."""
    delivered: dict[int, Delivery] = field(default_factory=dict)
    """The recipes that were delivered to us and are not acknowledged yet, by revision."""

    @property
    def away(self) -> set[int]:
        """Return the revisions that the broker may deliver to another worker, which may then report ``lost``.

        These are the ones that the broker took back, and one that was just written: the broker may deliver it to an
        older connection of ours that it still takes for alive.
        """
        return self.lives.keys() - self.delivered.keys()

    def outdate(self) -> None:
        """Mark the recipe as outdated: the sessions have changed, or it is too old."""
        self.dirty = True

    def written(self, revision: int, now: float, lives: frozenset[str] = frozenset()) -> None:
        """Note that a recipe of this revision was written ``now``, and which lives it names."""
        self.lives[revision] = lives
        self.revision = revision
        self.dirty = False
        self.written_at = now

    def dropped(self, revision: int) -> Delivery | None:
        """Invalidate every recipe. Return the recipe that was held, to be acknowledged."""
        self.revision = revision
        self.dirty = False
        held, self.held = self.held, None
        return held

    def hold(self, delivery: Delivery, revision: int) -> Delivery | None:
        """Hold the recipe of this revision; returns the one that was held before, to be acknowledged."""
        before, self.held = self.held, delivery
        self.held_revision = revision
        return before

    def came_back(self, delivery: Delivery, revision: int) -> None:
        """Note that the broker has delivered this revision to us."""
        self.given_back.discard(revision)
        self.delivered[revision] = delivery

    def acknowledged(self, delivery: Delivery) -> None:
        """Note that the broker no longer has this recipe."""
        for revision in [number for number, known in self.delivered.items() if known is delivery]:
            del self.delivered[revision]
            self.lives.pop(revision, None)

    def link_lost(self, never_sent: Collection[int] = ()) -> None:
        """Note that the broker may give a placer the recipes that it had delivered to us, and those in the inbox.

        Those of the revisions ``never_sent`` are in neither.
        """
        self.given_back.update(self.lives.keys() - never_sent)
        self.delivered.clear()
        self.held = None

    def unsent(self, revisions: set[int]) -> dict[str, set[int]]:
        """Remove the recipes that the broker may never have received. They are neither waited for nor sent again.

        Return each life that no other recipe names, with the removed revisions that name it.
        """
        taken = {revision: self.lives.pop(revision) for revision in revisions}
        if self.revision in taken:
            self.revision = 0
            self.outdate()
        lives = frozenset().union(*taken.values()) - frozenset().union(*self.lives.values())
        return {life: {revision for revision in taken if life in taken[revision]} for life in lives}

    def first_naming(self, life: str) -> float:
        """Return the lowest revision that names a life and that the broker may have; infinite if there is none."""
        return min((revision for revision, lives in self.lives.items() if life in lives), default=math.inf)

    def names(self, life: str) -> bool:
        """Return whether the broker may have a recipe that names a life."""
        return self.first_naming(life) != math.inf

    def naming(self, life: str) -> set[int]:
        """Return the revisions that name a life and that the broker has."""
        return {revision for revision in self.away if life in self.lives[revision]}

    def holding(self, life: str) -> set[int]:
        """Return the revisions that name a life and that were delivered to us."""
        return {revision for revision in self.delivered if life in self.lives.get(revision, ())}

    def stop_waiting(self) -> None:
        """Stop waiting for recipes that the broker took back: a placer dropped them, or the broker delays them."""
        for revision in self.given_back:
            self.lives.pop(revision, None)
        self.given_back.clear()
        self.outdate()

    def is_old(self, now: float) -> bool:
        """Whether the recipe is due to be written again, before the broker's acknowledgement timeout."""
        return self.written_at <= now - RENEW_AFTER


@dataclass(frozen=True, slots=True)
class LifeEvent:
    """An event that begins or ends a life of a session."""

    life: str
    event: CloudEvent
    ended: CallSession | None = None
    """The session, if it has ended: a recipe may have to name it before its ``created`` is published."""

    @property
    def is_end(self) -> bool:
        """Whether it ends the life."""
        return self.event.id == self.life


@dataclass(slots=True)
class EventState:
    """The waiting events of a call, and whether the broker has those that were published."""

    untold: list[CallSession] = field(default_factory=list)
    """Sessions whose ``created`` waits for the recipe.

    Once ``created`` is published, another worker can report ``lost``.
    """
    pending: list[LifeEvent] = field(default_factory=list)
    """Events of ended sessions that wait until it is known which worker reports them; see ``OwnedCall.may_tell``."""
    sent: list[LifeEvent] = field(default_factory=list)
    """Published events. The broker may not have them yet."""
    unconfirmed: bool = False
    """Whether the broker may lack the last publication of the call: an event, or its recipe."""
    unheard_rejection: bool = False
    """Whether the broker may lack the event that says what was not opened."""

    def wait_for_recipe(self, session: CallSession) -> None:
        """Delay a session's ``created`` until the recipe that names it is written."""
        self.untold.append(session)

    def was_untold(self, session: CallSession) -> bool:
        """Whether an ended session was never reported as created; it no longer waits for a recipe."""
        if session not in self.untold:
            return False
        self.untold.remove(session)
        return True

    def postpone(self, life: str, event: CloudEvent, *, ended: CallSession | None = None) -> None:
        """Keep an event of a life until it is known which worker reports it. ``ended``: see ``LifeEvent``."""
        self.pending.append(LifeEvent(life, event, ended))

    def drop_told(self, lives: frozenset[str]) -> None:
        """Drop the events of lives whose end a placer has reported."""
        self.pending = [one for one in self.pending if one.life not in lives]

    def take_untold(self) -> list[CallSession]:
        """Take the sessions whose ``created`` is published now."""
        sessions, self.untold = self.untold, []
        return sessions

    def take_pending(self) -> list[LifeEvent]:
        """Take the waiting events, to publish them or to leave them to the placer."""
        events, self.pending = self.pending, []
        return events

    def send(self, one: LifeEvent) -> None:
        """Note that an event is published now."""
        self.sent.append(one)
        self.unconfirmed = True

    def took_back(self, event_ids: set[str], opened: dict[str, CallSession]) -> None:
        """Hold back the events without a confirm after a lost link; ``opened`` are the open sessions by their lives.

        Other events wait for the next link behind their recipe, which may be lost with that one.
        """
        again = [one for one in self.sent if one.event.id in event_ids]
        self.sent = [one for one in self.sent if one.event.id not in event_ids]
        self.untold[:0] = [opened[one.life] for one in again if one.life in opened]
        self.pending[:0] = [one for one in again if one.life not in opened]

    def published(self) -> None:
        """Note that a publication of the call is on its way to the broker."""
        self.unconfirmed = True

    def published_rejection(self) -> None:
        """Note that an event says what was not opened. Nobody else hears of that if this worker dies."""
        self.unconfirmed = self.unheard_rejection = True

    def confirmed(self, events: int) -> None:
        """Note that the broker has confirmed the call's publications, up to this number of events."""
        del self.sent[:events]
        self.unconfirmed = bool(self.sent)
        self.unheard_rejection = False


@dataclass(slots=True)
class OwnershipCheck:
    """When the call was last known to be ours, and whether that is in doubt."""

    checked_at: float = field(default_factory=_now)
    """When messages for the call were last known to arrive here."""
    in_doubt: bool = False
    """Whether the link is or was lost, so that another worker may own the call now."""
    told: set[str] = field(default_factory=set)
    """The queues of the links over which others have asked, and were answered. Who has that link gives the call up."""

    returned_at: datetime | None = None
    """When such a doubt was over last. Another worker may have owned the call until then."""

    def link_lost(self) -> None:
        """Doubt that the call is ours: another worker may own it from now on."""
        self.in_doubt = True
        self.told.clear()

    def yields(self, ours: WorkerId, owner: WorkerId, link: str) -> bool:
        """Return whether this worker (``ours``) gives the call up, because ``owner`` has answered that it owns it.

        Two owners that check at once are both answered. Only one of them may give the call up. ``link`` is the queue of
        the link over which the owner has answered. If its check came over an older one, it never got our answer.
        """
        return link not in self.told or ours < owner

    def confirmed(self, now: float) -> bool:
        """Note that the call is ours ``now``. Return whether that was in doubt."""
        self.checked_at = now
        was_in_doubt, self.in_doubt = self.in_doubt, False
        if was_in_doubt:
            self.returned_at = datetime.now(UTC)
        return was_in_doubt

    def covers(self, session: CallSession) -> bool:
        """Return whether another worker may have closed the session: it had been opened before the doubt was over."""
        return session.restored or (self.returned_at is not None and session.created_at <= self.returned_at)


@dataclass(slots=True)
class Restoration:
    """The recipe that the call was last restored from, and how many workers in a row died with the call."""

    deaths: int = 0
    restored_at: float = 0.0
    source: tuple[WorkerId, int] | None = None
    """The worker that wrote this recipe, and its revision."""

    def restored(self, recipe: Recipe, now: float, *, died: bool) -> None:
        """Note the recipe that the call is restored from, and whether its worker ``died`` or handed the call over."""
        self.deaths = max((one.restores for one in recipe.sessions), default=0) + died
        self.restored_at = now
        self.source = recipe.worker_id, recipe.revision

    def outlived(self, now: float) -> bool:
        """Return whether the call has just lived long enough for earlier deaths to be forgotten."""
        if not self.deaths or self.restored_at > now - LIVED:
            return False
        self.deaths = 0
        return True

    def allows(self, recipe: Recipe) -> bool:
        """Return whether a recipe comes from the same worker and is not older than the last one."""
        return self.source is None or (recipe.worker_id == self.source[0] and recipe.revision > self.source[1])


class Ringing:
    """A ringing call: the sessions that it gets when it is answered, and the places and processes held for them.

    ``reserved`` may lack a service, because there was no room or because a session has it already.
    """

    def __init__(
        self, wanted: list[Wanted], reserved: dict[ServiceName, Reservation[ToolProcess]], timer: asyncio.TimerHandle
    ) -> None:
        self.wanted = wanted
        self._reserved = reserved
        self._timer = timer

    def reserved(self, service: ServiceName) -> Reservation[ToolProcess] | None:
        """Return the reservation for a session on the service, if there is one. The caller owns it."""
        return self._reserved.pop(service, None)

    def over(self) -> None:
        """Release everything that is reserved: the call no longer rings. Idempotent."""
        self._timer.cancel()
        for reservation in self._reserved.values():
            reservation.give_back()
        self._reserved.clear()


class Reason(Enum):
    """Why a call is owned, besides its sessions."""

    SESSIONS = "sessions"
    """No other reason: without a session the call is released."""
    RINGING = "ringing"
    """The call rings, and processes are held for the sessions that it gets when it is answered."""
    ANSWERS = "answers"
    """A repeated tool call must find the answer to the first one, and a request to a dead session how it died."""
    ENDED = "ended"
    """The call has ended, and its tombstone must bar later messages."""


class Tenure:
    """Why a call is owned: one reason at a time, and the timer that ends it."""

    def __init__(self) -> None:
        self.reason = Reason.SESSIONS
        self.ringing: Ringing | None = None
        """Set while the reason is ``RINGING``."""
        self._timer: asyncio.TimerHandle | None = None

    def _become(
        self, reason: Reason, *, timer: asyncio.TimerHandle | None = None, ringing: Ringing | None = None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.ringing is not None:
            self.ringing.over()
        self.reason, self._timer, self.ringing = reason, timer, ringing

    def ring(self, ringing: Ringing) -> None:
        """Own the call because it rings, and processes are held for it."""
        self._become(Reason.RINGING, ringing=ringing)

    def stop_ringing(self) -> None:
        """Give back what is still held for the call: it was answered, or will not be. Idempotent."""
        if self.reason is Reason.RINGING:
            self._become(Reason.SESSIONS)

    def keep_answers(self, timer: asyncio.TimerHandle) -> None:
        """Own the call to keep its answers, until ``timer`` fires."""
        self._become(Reason.ANSWERS, timer=timer)

    def end(self, timer: asyncio.TimerHandle) -> None:
        """Own the ended call until ``timer`` fires. This is its tombstone."""
        self._become(Reason.ENDED, timer=timer)

    def resume(self) -> None:
        """Own the call for its sessions again."""
        self._become(Reason.SESSIONS)

    @property
    def has_ended(self) -> bool:
        """Whether the call has ended and has a tombstone."""
        return self.reason is Reason.ENDED


@dataclass(slots=True, eq=False)
class OwnedCall:
    """A call of this worker. It is compared by identity, because a worker may own the same call again later."""

    call_id: CallId
    placement: str = ""
    """The placement with which it was bound to this inbox last."""
    owned_since: datetime = field(default_factory=lambda: datetime.now(UTC))
    opened: OpenedBy = field(default_factory=lambda: OpenedBy(datetime.now(UTC)))
    """The message that its sessions go back to: an end that bars it is the end of the call."""
    sessions: dict[SessionId, CallSession] = field(default_factory=dict)
    had: set[SessionId] = field(default_factory=set)
    """Every session that the call has had here. No recipe restores one of them again."""
    died: dict[SessionId, ProcessExit] = field(default_factory=dict)
    """How the servers of the sessions ended that died and were not opened again. A request for one is told."""
    opened_by: dict[SessionId, str] = field(default_factory=dict)
    """The message that opened each session. If it is delivered again, it opens nothing."""
    undecided: set[SessionId] = field(default_factory=set)
    """Sessions opened before the call's start and without a timeout. The route of the start sets their timeout."""
    recipe: RecipeState = field(default_factory=RecipeState)
    events: EventState = field(default_factory=EventState)
    check: OwnershipCheck = field(default_factory=OwnershipCheck)
    restoration: Restoration = field(default_factory=Restoration)
    tenure: Tenure = field(default_factory=Tenure)
    bound_to: str | None = None
    """The requests queue that is bound to the call."""
    tool_calls: int = 0
    """Tool calls that are running, or wait for their session."""
    starting: Starting = field(default_factory=Starting)
    hand_over: Message | None = None
    """What the placer gets before we release the call, when this worker leaves."""

    @property
    def may_tell(self) -> bool:
        """Whether this worker reports the ends: it surely owns the call, and holds all its recipes."""
        return not (self.check.in_doubt or self.recipe.away)

    def begin(self, placement: str) -> bool:
        """Own the call from now on, unless this is its last placement again; returns whether it is not.

        Others may have owned the call before: what they had is news.
        """
        if placement == self.placement:
            return False
        self.placement = placement
        self.owned_since = datetime.now(UTC)
        self.had.intersection_update(self.sessions)
        self.restoration.source = None
        return True

    def enter(self, session: CallSession) -> None:
        """Add a session that has been opened."""
        self.sessions[session.session_id] = session
        self.had.add(session.session_id)
        self.died.pop(session.session_id, None)
        self.events.wait_for_recipe(session)
        self.recipe.outdate()
        if self.tenure.reason is Reason.ANSWERS:
            self.tenure.resume()

    def leave(self, session: CallSession) -> bool:
        """Remove an ended session. Return whether the call had this session, and not another one with its id."""
        if self.sessions.get(session.session_id) is not session:
            return False
        del self.sessions[session.session_id]
        if session.exit is not None:
            self.died[session.session_id] = session.exit
        self.recipe.outdate()
        return True

    def renew_lives(self, lives: frozenset[str]) -> None:
        """Give a new life to each session with one of these lives, because another worker reports their ends."""
        for session in self.sessions.values():
            if session.life in lives:
                session.renew_life()
                if session not in self.events.untold:
                    self.events.wait_for_recipe(session)
                self.recipe.outdate()

    def link_lost(self, never_sent: Collection[int] = ()) -> None:
        """Note that the link is lost: the broker has taken the recipe back, and another worker may own the call.

        ``never_sent`` are the revisions of recipes that wait for the next link.
        """
        self.check.link_lost()
        self.recipe.link_lost(never_sent)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Own the call within this block, in which a tool call runs or waits for its session."""
        self.tool_calls += 1
        try:
            yield
        finally:
            self.tool_calls -= 1

    def is_news(self, recipe: Recipe, *, within: float) -> bool:
        """Return whether a recipe can contain sessions that are missing here.

        After a worker's death, a command or an older recipe may arrive first and open some of the sessions. The newer
        recipe follows within seconds. One that comes later than ``within`` (s), or from another worker, describes an
        earlier state.
        """
        if not self.restoration.allows(recipe):
            return False
        return not self.sessions or datetime.now(UTC) - self.owned_since < timedelta(seconds=within)
