"""Decides what happens to a message for a call without an owner. Pure: the placer carries it out."""

from dataclasses import dataclass
from typing import assert_never

from consumer.broker.outcome import Done
from consumer.calls.context import Configured
from consumer.calls.messages.parsing import Addressed, names_session_of, no_session
from consumer.calls.routes import plan
from consumer.calls.wanted import Wanted, wanted_by
from schemas.errors import SessionNotFound
from schemas.ids import SessionId, WorkerId
from schemas.internal import OwnerAnswer, OwnerCheck, Recipe
from schemas.replies import CloseResult, succeeded
from schemas.requests import (
    CallEnded,
    CallProgress,
    CallStarted,
    CompletionComplete,
    InputAnswer,
    LoggingLevel,
    MayOpen,
    PromptsGet,
    PromptsList,
    ResourcesList,
    ResourcesRead,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
    SessionClose,
    SessionCreate,
    SessionDescribe,
    SessionGet,
    SessionTouch,
    ToolsCall,
    ToolsCancel,
    ToolsList,
)

MAX_DEATHS = 4
"""How many workers in a row may die while they have a call before the call counts as the cause."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the placer knows of a message and its call."""

    placed: bool = False
    """The worker to whose inbox the call was bound a moment ago, if it may be alive."""
    ended: bool = False
    """Whether the call has ended, and a message of this time does not open it again."""
    resent: bool = False
    """Whether the message was sent to the sessions exchange a second time.

    If the call had an owner, it would have it.
    """
    orphaned: bool = False
    """Whether a worker has died with the message in its inbox."""
    closed: frozenset[SessionId] = frozenset()
    """The sessions of a recipe that were closed by command since it was written."""


@dataclass(frozen=True, slots=True)
class ToOwner:
    """The message goes to the inbox that its call was bound to a moment ago."""


@dataclass(frozen=True, slots=True)
class SendAgain:
    """The message goes to the sessions exchange again, because the owner may not have bound its requests queue yet."""


@dataclass(frozen=True, slots=True)
class Admit:
    """The message goes to a worker with room for the sessions that it opens."""

    wanted: list[Wanted]
    named: bool = False
    """Whether the message names the service, which some worker then has to offer."""
    commanded: bool = False
    """Whether this is an explicit request to open a session, which overrides the end of the call."""
    timeout: float | None = None
    """How long (s) its caller waits, if the wait for room is a part of that."""

    @property
    def comes_again(self) -> bool:
        """Whether the next placer may handle the message if this one keeps it: it is no use of a session."""
        return self.commanded or not self.named


@dataclass(frozen=True, slots=True)
class EndCall:
    """The call has ended, and no message may open it again."""


@dataclass(frozen=True, slots=True)
class ConfirmOwner:
    """The worker that asks is the owner, if it is alive."""

    asker: WorkerId


Decision = Done | ToOwner | SendAgain | Admit | EndCall | ConfirmOwner


def decide(message: Addressed, given: Circumstances, configured: Configured) -> Decision:
    """Decide what happens to a message.

    Raises:
        SessionNotFound: no worker has the session that it addresses.
    """
    if given.placed:
        return ToOwner()
    match message:
        case CallStarted() | CallProgress():
            if given.ended:
                return Done(succeeded({"sessions": []}), what="ended_before")
            wanted = wanted_by(message, plan(message, configured.routes, configured.services))
            return Admit(wanted) if wanted else Done(succeeded({"sessions": []}), what="no_route")
        case SessionCreate(session_id=session_id, service_name=service, metadata=metadata):
            if given.ended and (given.orphaned or given.resent):
                raise SessionNotFound(f"the call of {session_id!r} has ended", session_id=session_id)
            return Admit([Wanted(session_id, service, metadata=metadata or {})], named=True, commanded=True)
        case MayOpen(opens=service) if service is not None and not given.ended and names_session_of(message, service):
            if not given.resent:
                return SendAgain()  # the call's inbox may be bound, though no requests queue is
            return Admit([Wanted(message.session_id, service)], named=True, timeout=message.timeout)
        case CallEnded():
            return EndCall()
        case SessionClose():
            return Done(succeeded(CloseResult(closed=False, sessions=[]).model_dump()), what="no_session")
        case Recipe():
            return _decide_recipe(message, given, configured)
        case OwnerCheck(call_id=call_id, worker_id=asker):
            if given.ended:
                return Done(succeeded(OwnerAnswer(call_id=call_id, ended=True).model_dump(exclude_defaults=True)))
            return ConfirmOwner(asker)
        case ToolsCancel() if given.resent:
            return Done(succeeded({"cancelled": False}))
        case (
            SessionGet()
            | SessionTouch()
            | SessionDescribe()
            | ToolsCall()
            | ToolsCancel()
            | InputAnswer()
            | ToolsList()
            | ResourcesList()
            | ResourcesRead()
            | PromptsList()
            | PromptsGet()
            | ResourcesSubscribe()
            | ResourcesUnsubscribe()
            | CompletionComplete()
            | LoggingLevel()
        ):
            if not given.resent:
                return SendAgain()
            raise no_session(message)
        case _:
            assert_never(message)


def _decide_recipe(recipe: Recipe, given: Circumstances, configured: Configured) -> Decision:
    wanted = [
        Wanted(one.session_id, one.service_name, metadata=one.metadata)
        for one in recipe.sessions
        if configured.restores(one.service_name) and one.session_id not in given.closed
    ]
    if given.ended or not wanted or (given.orphaned and in_a_crash_loop(recipe)):
        return Done(what="not_restored")
    return Admit(wanted)


def in_a_crash_loop(recipe: Recipe) -> bool:
    """Return whether too many workers died with these sessions; see ``owned_call.LIVED``."""
    return max((one.restores for one in recipe.sessions), default=0) + 1 >= MAX_DEATHS


def is_poison(message: Addressed, deaths: int) -> bool:
    """Return whether so many workers died with a message that it becomes a dead letter. Recipes have their own rule."""
    return deaths >= MAX_DEATHS and not isinstance(message, CallEnded | OwnerCheck | Recipe)
