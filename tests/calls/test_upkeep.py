"""What is done for a call now and then, decided from its state alone."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.broker.message import Delivery, Message
from consumer.calls.owned_call import (
    LIVED,
    RENEW_AFTER,
    CallSession,
    EventState,
    LifeEvent,
    OwnedCall,
    OwnershipCheck,
    Reason,
    RecipeState,
    Restoration,
    Ringing,
    Tenure,
)
from consumer.calls.ownership.upkeep import CHECK_EVERY, MISSING_AFTER, Findings, Upkeep, look_at, upkeep_of
from consumer.sessions import ProcessExit
from schemas.events import SessionEventType, session_event
from schemas.ids import CallId, ServiceName, SessionId, WorkerId
from schemas.internal import Recipe, SessionRecipe

CALL = CallId("c-1")
ID = SessionId(CALL)
NOW = 1000.0
GRACE = 5.0
EVENT = session_event(SessionEventType.CLOSED, {"worker_id": "w-1", "session_id": CALL, "service_name": "echo"}, "life")


def session(name: str = CALL) -> CallSession:
    """What of a session its call looks at."""
    return cast("CallSession", SimpleNamespace(session_id=SessionId(name), exit=None))


def owned(
    *,
    reason: Reason = Reason.SESSIONS,
    sessions: int = 0,
    dirty: bool = False,
    pending: bool = False,
    tool_calls: int = 0,
    given_back: set[int] | None = None,
    in_doubt: bool = False,
    checked_at: float = NOW,
) -> OwnedCall:
    call = OwnedCall(CALL, check=OwnershipCheck(checked_at, in_doubt))
    for number in range(sessions):
        call.sessions[SessionId(f"{CALL}~{number}")] = session(f"{CALL}~{number}")
    call.tenure.reason = reason
    call.recipe = RecipeState(dirty=dirty, given_back=given_back or set())
    call.events.pending = [LifeEvent("life", EVENT)] if pending else []
    call.tool_calls = tool_calls
    return call


# What keeps the recipe in line with the sessions.

TABLE = {
    # reason: (sessions, has answers, leaving) -> what is done
    Reason.SESSIONS: (Upkeep.RELEASE, Upkeep.RELEASE, Upkeep.KEEP_ANSWERS, Upkeep.RELEASE),
    Reason.ANSWERS: (Upkeep.RELEASE, Upkeep.RELEASE, Upkeep.KEEP_ANSWERS, Upkeep.RELEASE),
    Reason.RINGING: (Upkeep.DROP_RECIPE,) * 4,
    Reason.ENDED: (Upkeep.DROP_RECIPE,) * 4,
}


@pytest.mark.parametrize("reason", Reason)
def test_what_is_done_for_a_call_without_sessions(reason: Reason):
    done = tuple(
        upkeep_of(owned(reason=reason), has_answers=has_answers, leaving=leaving)
        for has_answers, leaving in itertools.product((False, True), (False, True))
    )
    assert done == TABLE[reason]


@pytest.mark.parametrize("reason", Reason)
def test_a_call_with_sessions_has_a_recipe_that_names_them(reason: Reason):
    for has_answers, leaving in itertools.product((False, True), (False, True)):
        for dirty, done in ((True, Upkeep.WRITE_RECIPE), (False, Upkeep.NOTHING)):
            call = owned(reason=reason, sessions=1, dirty=dirty)
            assert upkeep_of(call, has_answers=has_answers, leaving=leaving) is done


def test_how_a_session_died_is_kept_like_an_answer_until_it_is_opened_again():
    call, dead, anew = owned(), session(), session()
    call.enter(dead)
    dead.exit = ProcessExit(3, None, "oops")
    call.leave(dead)
    assert call.died == {ID: dead.exit}
    assert upkeep_of(call, has_answers=False, leaving=False) is Upkeep.KEEP_ANSWERS
    assert upkeep_of(call, has_answers=False, leaving=True) is Upkeep.RELEASE
    call.enter(anew)
    call.leave(anew)
    assert upkeep_of(call, has_answers=False, leaving=False) is Upkeep.RELEASE, "it was closed"


def test_a_tool_call_that_runs_is_as_good_as_an_answer():
    assert upkeep_of(owned(tool_calls=1), has_answers=False, leaving=False) is Upkeep.KEEP_ANSWERS


calls = st.builds(
    owned,
    reason=st.sampled_from(Reason),
    sessions=st.integers(0, 2),
    dirty=st.booleans(),
    pending=st.booleans(),
    tool_calls=st.integers(0, 2),
    given_back=st.sets(st.integers(1, 3)),
    in_doubt=st.booleans(),
    checked_at=st.floats(0.0, NOW),
)


@given(calls, st.booleans(), st.booleans())
def test_no_recipe_goes_and_no_call_is_released_before_its_ends_are_told(call, has_answers, leaving):
    done = upkeep_of(call, has_answers=has_answers, leaving=leaving)
    assert (done is Upkeep.WAIT) == bool(call.events.pending)
    if done in (Upkeep.DROP_RECIPE, Upkeep.KEEP_ANSWERS, Upkeep.RELEASE):
        assert not call.sessions
        assert not call.events.pending


# What a look at a call finds.


@pytest.mark.parametrize(
    ("why", "call", "has_ended", "found"),
    [
        ("all is well", owned(sessions=1), False, Findings(False, False, False)),
        ("it ended elsewhere", owned(sessions=1), True, Findings(True, False, False)),
        ("it rings, and ended elsewhere", owned(reason=Reason.RINGING), True, Findings(True, False, False)),
        ("it has its tombstone", owned(reason=Reason.ENDED, sessions=1), True, Findings(False, False, False)),
        ("nothing of it is here", owned(), True, Findings(False, False, False)),
        ("we were away", owned(in_doubt=True), False, Findings(False, False, True)),
        ("not asked for long", owned(sessions=1, checked_at=NOW - CHECK_EVERY), False, Findings(False, False, True)),
        ("nothing to be asked for", owned(checked_at=NOW - CHECK_EVERY), False, Findings(False, False, False)),
        ("the recipe is on its way", owned(given_back={1}), False, Findings(False, False, False)),
        (
            "the recipe is lost",
            owned(given_back={1}, checked_at=NOW - GRACE - MISSING_AFTER),
            False,
            Findings(False, True, False),
        ),
        (
            "the recipe may be a placer's",
            owned(given_back={1}, checked_at=NOW - GRACE - MISSING_AFTER, in_doubt=True),
            False,
            Findings(False, False, True),
        ),
    ],
)
def test_a_look_finds(why: str, call: OwnedCall, has_ended: bool, found: Findings):
    assert look_at(call, now=NOW, grace=GRACE, has_ended=has_ended) == found, why


@given(calls, st.booleans())
def test_a_recipe_is_written_anew_only_where_it_is_known_whose_the_call_is(call, has_ended):
    found = look_at(call, now=NOW, grace=GRACE, has_ended=has_ended)
    assert not (found.recipe_missing and call.check.in_doubt)
    assert not (found.ended_elsewhere and call.tenure.has_ended)
    assert found.owner_in_doubt or not call.check.in_doubt


# The parts of a call's state.


def delivery() -> Delivery:
    return Delivery(Message(b""), "inbox", "", "", False, 0.0, None)


def test_a_recipe_that_the_broker_has_back_is_awaited():
    state, first, second = RecipeState(), delivery(), delivery()
    state.written(1, NOW, frozenset({"life"}))
    assert state.hold(first, 1) is None
    assert state.hold(second, 1) is first, "the older delivery can go"
    state.link_lost()
    assert (state.held, state.given_back) == (None, {1})
    state.link_lost()
    assert state.given_back == {1}
    assert (state.naming("life"), state.naming("another")) == ({1}, set())
    state.came_back(first, 1)
    assert not state.given_back
    state.acknowledged(first)
    state.link_lost()
    assert not state.given_back, "RabbitMQ does not have it any more"


def test_a_recipe_that_is_on_its_way_when_the_link_is_lost_is_awaited():
    state = RecipeState()
    state.written(1, NOW)
    state.link_lost()
    assert state.given_back == {1}


def test_a_recipe_is_dirty_from_a_change_to_the_next_that_is_written_or_dropped():
    state = RecipeState()
    for settle in (lambda: state.written(1, NOW), lambda: state.dropped(2)):
        state.outdate()
        assert state.dirty
        settle()
        assert not state.dirty
    state.given_back.add(1)
    state.stop_waiting()
    assert (state.dirty, state.given_back) == (True, set())


def test_a_recipe_is_renewed_before_the_broker_wants_it_back():
    state = RecipeState()
    state.written(1, NOW)
    assert not state.is_old(NOW + RENEW_AFTER - 1)
    assert state.is_old(NOW + RENEW_AFTER)


def test_a_session_that_ended_before_it_was_told_of_is_told_with_its_end():
    events, one, other = EventState(), session("a"), session("b")
    events.wait_for_recipe(one)
    events.wait_for_recipe(other)
    assert events.was_untold(one)
    assert not events.was_untold(one)
    assert events.take_untold() == [other]
    assert events.untold == []


def test_what_was_published_and_is_not_confirmed_waits_again_when_the_link_is_lost():
    events, told, opened = EventState(), LifeEvent("life", EVENT), session()
    events.postpone("life", EVENT)
    assert events.take_pending() == [told]
    assert events.pending == []
    events.send(told)
    events.confirmed(0)
    assert events.unconfirmed, "it was published since"
    events.took_back({EVENT.id}, {})
    assert events.pending == [told], "RabbitMQ may not have it"
    events.send(told)
    events.took_back({EVENT.id}, {"life": opened})
    assert events.untold == [opened], "the session is open: it is told of behind its next recipe"
    events.send(told)
    events.confirmed(1)
    assert not events.unconfirmed
    events.took_back({EVENT.id}, {"life": opened})
    assert (events.pending, events.untold) == ([told], [opened])


def recipe(worker: str, revision: int, restores: int = 0) -> Recipe:
    now = datetime.now(UTC)
    one = SessionRecipe(
        session_id=SessionId(CALL), service_name=ServiceName("echo"), created_at=now, last_accessed=now, timeout=60.0,
        metadata={}, life="l", restores=restores,
    )  # fmt: skip
    return Recipe(call_id=CALL, worker_id=WorkerId(worker), revision=revision, sessions=[one])


def test_deaths_in_a_row_are_forgotten_when_the_call_has_lived():
    history = Restoration()
    history.restored(recipe("w-1", 1, restores=2), NOW, died=True)
    assert history.deaths == 3
    assert not history.outlived(NOW + LIVED - 1)
    assert history.outlived(NOW + LIVED)
    assert not history.outlived(NOW + LIVED), "once"
    history.restored(recipe("w-2", 1, restores=2), NOW, died=False)
    assert history.deaths == 2, "it was handed over"


def test_a_recipe_is_news_if_it_is_newer_and_of_the_same_worker_and_in_time():
    call = owned()
    assert call.is_news(recipe("w-1", 1), within=5)
    call.restoration.restored(recipe("w-1", 2), NOW, died=True)
    assert not call.is_news(recipe("w-1", 2), within=5)
    assert not call.is_news(recipe("w-2", 9), within=5)
    assert call.is_news(recipe("w-1", 3), within=5)
    call = owned(sessions=1)
    assert call.is_news(recipe("w-1", 1), within=5)
    call.owned_since -= timedelta(seconds=6)
    assert not call.is_news(recipe("w-1", 1), within=5)


def test_a_session_enters_its_call_and_leaves_it():
    call, one, successor = owned(reason=Reason.ANSWERS), session(), session()
    call.enter(one)
    assert (call.sessions, call.had, call.events.untold) == ({ID: one}, {ID}, [one])
    assert call.recipe.dirty
    assert call.tenure.reason is Reason.SESSIONS, "it is not owned for its answers any more"
    call.enter(successor)
    assert not call.leave(one), "another has its place"
    assert call.leave(successor)
    assert call.had == {ID}


class Timer:
    """A timer that knows whether it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def changes(tenure: Tenure) -> dict[str, Callable[[], Any]]:
    def timed(change: Callable[[Any], None]) -> Callable[[], Timer]:
        def make() -> Timer:
            timer = Timer()
            change(timer)
            return timer

        return make

    return {
        "ring": timed(lambda timer: tenure.ring(Ringing([], {}, timer))),
        "keep answers": timed(tenure.keep_answers),
        "end": timed(tenure.end),
        "resume": tenure.resume,
    }


@given(st.lists(st.sampled_from(["ring", "keep answers", "end", "resume"]), min_size=1, max_size=6))
def test_a_call_is_owned_for_one_reason_at_a_time_and_has_its_timer_only(steps):
    tenure, timers = Tenure(), []
    for step in steps:
        if (timer := changes(tenure)[step]()) is not None:
            timers.append(timer)
        running = [timer for timer in timers if not timer.cancelled]
        assert running == ([] if step == "resume" else timers[-1:])
        assert (tenure.ringing is not None) == (tenure.reason is Reason.RINGING)
        assert tenure.has_ended == (step == "end")
    tenure.stop_ringing()
    assert (tenure.reason is Reason.SESSIONS) == (steps[-1] in ("ring", "resume"))
