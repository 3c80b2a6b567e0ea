"""A call of this worker: its sessions, its recipe, what was told of it, and why it is owned.

A call is owned from the moment the placer has bound it to the inbox until it is released. While it has sessions, its
recipe stands unacknowledged in the inbox: should the worker die, the broker hands it back and the call is placed anew.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from consumer.broker.message import Delivery
from consumer.calls.context import ToolProcess
from consumer.calls.ownership.ringing import Ringing
from consumer.calls.requests.idempotency import Answers
from consumer.sessions import Session
from schemas.ids import CallId, SessionId, WorkerId
from schemas.internal import Recipe

CallSession = Session[ToolProcess]


@dataclass(slots=True, eq=False)
class OwnedCall:
    """A call of this worker."""

    call_id: CallId
    owned_since: datetime = field(default_factory=lambda: datetime.now(UTC))
    sessions: dict[SessionId, CallSession] = field(default_factory=dict)
    opened_by: dict[SessionId, str] = field(default_factory=dict)
    """The message that opened each session: delivered again, it opens nothing."""
    undecided: set[SessionId] = field(default_factory=set)
    """Sessions that were opened ahead of the call's start without a timeout: the start's route says theirs."""
    restores: int = 0
    """How many workers in a row have died with it."""
    restored_at: float = 0.0
    restored_from: tuple[WorkerId, int] | None = None
    """Whose recipe it was restored from last, and its revision."""
    had: set[SessionId] = field(default_factory=set)
    """Every session that it has had here: no recipe brings one of them back."""
    untold: list[CallSession] = field(default_factory=list)
    """Sessions whose ``created`` waits for the recipe: what has been told of can be told lost."""
    untold_ends: list[Callable[[], None]] = field(default_factory=list)
    """Tells of the ends that wait until it is known whose they are to tell; see ``may_tell``."""
    unconfirmed: bool = False
    """Whether the broker may not have yet what was last told of it, or its recipe."""
    checked_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """When it was last known that messages for the call come here."""
    unchecked: bool = False
    """Whether we are or were away, and do not know that the call is still ours."""
    dirty: bool = False
    """Whether the sessions differ from what the recipe says."""
    revision: int = 0
    written_at: float = 0.0
    held: Delivery | None = None
    """The recipe, as the broker keeps it for us."""
    held_revision: int = 0
    given_back: set[int] = field(default_factory=set)
    """Revisions that the broker has had back, and we have not again: who gets one may tell ``lost``."""
    bound_to: str | None = None
    """The requests queue that is bound to the call."""
    ended: asyncio.TimerHandle | None = None
    """Set when the call has ended: the tombstone's timer."""
    answers: Answers = field(default_factory=Answers)
    """What its tool calls were answered."""
    users: int = 0
    """Tool calls that are being run, or wait for their session."""
    lingers: asyncio.TimerHandle | None = None
    """Set while the call is owned for its answers' sake only."""
    rings: Ringing | None = None
    """Set while it rings: the call is owned for the sake of what is held for it."""

    @property
    def may_tell(self) -> bool:
        """Whether ends are ours to tell: the call is known to be ours, and no placer can have a recipe of it."""
        return not (self.unchecked or self.given_back)

    def is_news(self, recipe: Recipe, *, within: float) -> bool:
        """Whether a recipe can tell of sessions that are missing here.

        Of what a dead worker held, a command or an older recipe may have come first and opened some of its sessions.
        That takes seconds; what comes later than ``within`` (s), or from somebody else, is of a life before that.
        """
        if self.restored_from is not None:
            writer, revision = self.restored_from
            if recipe.worker_id != writer or recipe.revision <= revision:
                return False
        return not self.sessions or datetime.now(UTC) - self.owned_since < timedelta(seconds=within)

    def tell_ends(self) -> None:
        """Tell of the ends that have been noted."""
        for tell in self.untold_ends:
            tell()
            self.unconfirmed = True
        self.untold_ends.clear()

    def rings_no_more(self) -> None:
        """It was answered, or will not be: what is still held for it is given back."""
        if self.rings is not None:
            self.rings.over()
            self.rings = None

    def let_go(self) -> None:
        """It is ours no longer: no timer rings any more, nothing is held for it."""
        self.rings_no_more()
        self.answers.clear()
        for timer in (self.ended, self.lingers):
            if timer is not None:
                timer.cancel()
