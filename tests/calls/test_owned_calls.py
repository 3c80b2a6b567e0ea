"""Whose it is to tell of a session's end: who has its recipe."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from consumer.broker.message import CALL_HEADER, Delivery, Message
from consumer.broker.outbox import Outbox
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names
from consumer.calls.events import Reporter
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.calls.requests.idempotency import AnswerWindows
from consumer.sessions import Session
from schemas import headers
from schemas.events import CONTENT_TYPE, SessionEventType, session_event
from schemas.ids import CallId, ServiceName, SessionId, WorkerId
from schemas.internal import Recipe

CALL = CallId("c-1")
ME = WorkerId("w-1")
INFO = {"worker_id": ME, "session_id": CALL, "service_name": "echo"}


class KeptOutbox(Outbox):
    """An outbox without a link, that says which events were put into it."""

    def __init__(self, publisher: Publisher) -> None:
        super().__init__(publisher)
        self.lives: list[str | None] = []
        self.messages: list[Message] = []

    def put(self, message: Message, exchange: str, routing_key: str) -> None:
        super().put(message, exchange, routing_key)
        self.messages.append(message)
        if message.content_type == CONTENT_TYPE:
            self.lives.append(message.message_id)

    def give_to_link(self) -> None:
        for one in self._waiting:
            one.was_sent = True


@dataclass
class Mine:
    """The calls of a worker without a link, and the lives whose end it has told."""

    calls: OwnedCalls
    outbox: KeptOutbox

    @property
    def told(self) -> list[str | None]:
        return self.outbox.lives

    def lose_link(self) -> None:
        """Lose a link that was given everything, and confirmed nothing."""
        self.outbox.give_to_link()
        self.calls.detach()


def mine() -> Mine:
    names, publisher = Names(), Publisher()
    outbox = KeptOutbox(publisher)
    reporter = Reporter(ME, names, outbox)
    return Mine(OwnedCalls(ME, names, publisher, reporter, AnswerWindows(1 << 20)), outbox)


def delivered(recipe: Recipe, *, told: bool = False) -> Delivery:
    given = {CALL_HEADER: CALL} | ({headers.LOST: True} if told else {})
    return Delivery(Message(recipe.model_dump_json().encode(), headers=given), "inbox", "", "", False, 0.0, None)


def opened(mine: Mine, life: str = "life-1") -> tuple[OwnedCall, CallSession]:
    """A call with a session, which was told of."""
    call = mine.calls.own(CALL)
    process = cast("Any", SimpleNamespace(is_alive=True))
    session: CallSession = Session(SessionId(CALL), ServiceName("echo"), process)
    session.life = life
    call.enter(session)
    call.events.take_untold()
    return call, session


def written(mine: Mine, call: OwnedCall) -> Recipe:
    """Its recipe as of now, which the broker has delivered to us."""
    mine.calls.write_recipe(call)
    recipe = mine.calls.recipe(call, call.sessions.values())
    mine.calls.recipe_arrived(delivered(recipe), recipe)
    return recipe


def end(call: OwnedCall, session: CallSession) -> None:
    call.events.postpone(session.life, session_event(SessionEventType.CLOSED, INFO, session.life))
    call.leave(session)


def held(mine: Mine, life: str = "life-1") -> tuple[OwnedCall, Recipe]:
    """A call whose session has ended, which nobody was told of, and whose recipe the broker keeps for us."""
    call, session = opened(mine, life)
    recipe = written(mine, call)
    assert call.recipe.held is not None
    end(call, session)
    return call, recipe


async def left(mine: Mine) -> tuple[OwnedCall, Recipe]:
    """Such a call after the link was lost: its recipe and its end are left to the placer, and it is released."""
    call, recipe = held(mine)
    mine.lose_link()
    mine.calls.leave_to_placer(call)
    await mine.calls.release(call)
    return call, recipe


async def test_what_the_placer_has_the_recipe_of_is_told_by_the_placer():
    worker = mine()
    call, _ = held(worker)
    worker.lose_link()
    assert call.recipe.given_back
    assert not call.may_tell
    worker.calls.leave_to_placer(call)
    await worker.calls.release(call)
    assert worker.told == []


async def test_a_recipe_that_comes_back_after_all_is_told_of_by_us():
    worker = mine()
    _, recipe = await left(worker)
    again = delivered(recipe)
    assert worker.calls.recipe_arrived(again, recipe) is again, "nobody needs it any more"
    assert worker.told == ["life-1"]
    worker.calls.recipe_arrived(again, recipe)
    assert worker.told == ["life-1"], "once"


async def test_an_end_that_we_report_after_all_waits_for_the_recipe_again_if_the_link_is_lost():
    worker = mine()
    _, recipe = await left(worker)
    worker.calls.recipe_arrived(delivered(recipe), recipe)
    worker.lose_link()
    assert worker.outbox.take_back({"life-1"}) == set(), "the broker has the recipe again, and a placer may get it"
    assert worker.calls.left_from == recipe.revision
    worker.calls.recipe_arrived(delivered(recipe, told=True), recipe)
    assert worker.told == ["life-1"], "a placer has told of it"
    assert not worker.calls.needs_recipes


async def test_every_recipe_that_is_on_its_way_has_to_come_back():
    worker = mine()
    call, session = opened(worker)
    older = written(worker, call)
    worker.lose_link()
    newer = written(worker, call)
    end(call, session)
    worker.lose_link()
    worker.calls.leave_to_placer(call)
    worker.calls.recipe_arrived(delivered(newer), newer)
    assert worker.told == [], "the placer may have told of it with the older one"
    worker.calls.recipe_arrived(delivered(older), older)
    assert worker.told == ["life-1"]


async def test_a_recipe_of_an_earlier_life_is_not_taken_for_that_of_a_later_one():
    worker = mine()
    call, recipe = held(worker)
    await worker.calls.release(call)
    assert worker.told == ["life-1"]
    later, _ = held(worker, "life-2")
    old = delivered(recipe)
    kept = later.recipe.held
    assert worker.calls.recipe_arrived(old, recipe) is old
    assert later.recipe.held is kept


async def test_what_no_recipe_names_that_is_out_of_our_hands_is_told_by_us():
    worker = mine()
    call, session = opened(worker)
    written(worker, call)
    worker.lose_link()
    _, later = opened(worker, "life-2")
    written(worker, call)
    end(call, later)
    end(call, session)
    worker.calls.leave_to_placer(call)
    assert worker.told == ["life-2"]


async def test_a_recipe_that_was_told_lost_gives_its_session_another_life():
    worker = mine()
    call, session = opened(worker)
    recipe = written(worker, call)
    worker.lose_link()
    worker.calls.recipe_arrived(delivered(recipe, told=True), recipe)
    assert (session.life == "life-1", session.restored) == (False, True)
    assert call.events.untold == [session], "it is told of behind a recipe that names the new life"
    assert call.recipe.dirty
    assert not call.recipe.given_back


async def test_an_end_that_a_placer_has_told_is_not_told_by_us():
    worker = mine()
    call, recipe = held(worker)
    worker.lose_link()
    worker.calls.recipe_arrived(delivered(recipe, told=True), recipe)
    assert call.events.pending == []
    assert worker.told == []


async def test_an_end_that_was_left_to_a_placer_and_told_by_it_is_not_told_by_us():
    worker = mine()
    _, recipe = await left(worker)
    worker.calls.recipe_arrived(delivered(recipe, told=True), recipe)
    assert worker.told == []


async def test_a_session_whose_recipe_stays_away_goes_on_with_another_life():
    worker = mine()
    call, session = opened(worker)
    recipe = written(worker, call)
    worker.lose_link()
    worker.calls.stop_waiting(call)
    assert session.life != "life-1"
    assert call.recipe.dirty
    assert worker.told == [], "whoever gets the recipe tells of the life before"
    worker.calls.recipe_arrived(delivered(recipe), recipe)
    assert worker.told == ["life-1"], "it has come to us"


async def test_an_end_whose_recipe_stays_away_is_told_by_who_gets_it():
    worker = mine()
    call, recipe = held(worker)
    worker.lose_link()
    worker.calls.stop_waiting(call)
    assert (worker.told, call.events.pending) == ([], [])
    worker.calls.recipe_arrived(delivered(recipe), recipe)
    assert worker.told == ["life-1"]


async def test_a_recipe_that_the_broker_never_confirmed_is_not_sent_again_and_its_life_goes_on_as_another():
    worker = mine()
    call, session = opened(worker)
    worker.calls.write_recipe(call)
    first = worker.calls.recipe(call, call.sessions.values())
    worker.lose_link()
    assert (session.life == "life-1", call.recipe.dirty, call.recipe.away) == (False, True, set())
    assert call.events.untold == [session]
    second = written(worker, call)
    assert second.revision > first.revision
    end(call, session)
    worker.calls.recipe_arrived(delivered(first), first)
    assert worker.told == ["life-1.created", "life-1"], "it had arrived: it is ours to tell what it names"


async def test_what_ended_while_its_recipe_was_not_confirmed_is_told_if_that_has_arrived():
    worker = mine()
    call, session = opened(worker)
    worker.calls.write_recipe(call)
    recipe = worker.calls.recipe(call, [session])
    end(call, session)
    worker.lose_link()
    assert call.events.pending == []
    await worker.calls.release(call)
    assert worker.told == [], "if RabbitMQ has not got the recipe, nobody has heard of the session"
    worker.calls.recipe_arrived(delivered(recipe), recipe)
    assert worker.told == ["life-1"]


async def test_who_is_given_its_call_by_a_placer_does_not_wait_for_what_a_placer_has():
    worker = mine()
    worker.calls.own_anew(CALL, "w-2/1")
    call, session = opened(worker)
    recipe = written(worker, call)
    worker.lose_link()
    worker.calls.own_anew(CALL, "w-2/1")
    assert (session.life, call.recipe.given_back) == ("life-1", {recipe.revision}), "the same message once more"
    call.had.add(SessionId(f"{CALL}#over"))
    worker.calls.own_anew(CALL, "w-3/1")
    assert session.life != "life-1"
    assert (call.recipe.given_back, call.recipe.dirty) == (set(), True)
    assert call.events.untold == [session]
    assert call.had == {session.session_id}, "what others opened since may come back by their recipes"
    worker.calls.recipe_arrived(delivered(recipe, told=True), recipe)
    assert worker.told == [], "a placer has told of the life before"


async def test_what_is_handed_over_does_not_pass_for_the_recipe_that_is_awaited():
    worker = mine()
    call, session = opened(worker)
    written(worker, call)
    worker.lose_link()
    message = worker.calls.handover_message(call, [session])
    end(call, session)
    await worker.calls.release(call)
    handed_over = Recipe.model_validate_json(message.body)
    worker.calls.recipe_arrived(delivered(handed_over), handed_over)
    assert worker.told == []


async def test_a_recipe_says_which_sessions_are_restored_however_they_became_it():
    worker = mine()
    call, session = opened(worker)
    session.renew_life()
    since: CallSession = Session(SessionId(f"{CALL}#echo"), ServiceName("echo"), session.process)
    message = worker.calls.handover_message(call, [since, session])
    assert message.headers[headers.RESTORED] == "01"
    worker.calls.write_recipe(call)
    assert worker.outbox.messages[-1].headers[headers.RESTORED] == "1"


async def test_events_that_are_left_are_not_taken_for_told():
    worker = mine()
    call, _ = opened(worker)
    assert worker.calls.left_from == float("inf")
    worker.calls.write_recipe(call)
    worker.lose_link()
    assert worker.calls.left_from == 1


async def test_an_end_of_a_life_that_no_recipe_names_is_told_by_us_however_often_the_link_is_lost():
    worker = mine()
    call, session = opened(worker)
    written(worker, call)
    worker.lose_link()
    _, later = opened(worker, "life-2")
    call.leave(session)
    end(call, later)
    worker.calls.leave_to_placer(call)
    worker.calls.detach()  # a reconnect has failed
    assert worker.told == ["life-2"]
    assert worker.outbox.take_back({"life-2"}) == {"life-2"}, "it is still to be published"
    assert call.events.pending == []


async def test_a_recipe_that_no_link_was_given_waits_for_the_next_one_and_its_life_goes_on():
    worker = mine()
    call, session = opened(worker)
    first = written(worker, call)
    worker.lose_link()
    _, later = opened(worker, "life-2")
    worker.calls.write_recipe(call)
    worker.calls.tell_created(call)
    second = worker.calls.recipe(call, call.sessions.values())
    worker.calls.detach()  # a reconnect has failed
    assert (session.life, later.life, call.recipe.dirty) == ("life-1", "life-2", False)
    assert (call.recipe.given_back, call.recipe.away) == ({first.revision}, {first.revision, second.revision})
    end(call, later)
    assert worker.outbox.take_back({f"{ME}/{second.revision}"}), "it is still to be sent"
    worker.calls.recipe_arrived(delivered(second), second)
    worker.calls.leave_to_placer(call)
    assert worker.told == ["life-2"]


async def test_what_waits_for_the_next_link_is_taken_back_with_its_recipe_if_that_link_is_lost_too():
    worker = mine()
    call, session = opened(worker)
    call.events.wait_for_recipe(session)
    worker.calls.write_recipe(call)
    worker.calls.tell_created(call)
    worker.calls.detach()  # before any link was given it
    assert (session.life, call.events.untold) == ("life-1", [])
    worker.lose_link()
    assert session.life != "life-1", "if RabbitMQ has not got the recipe, nobody can tell the end of that life"
    assert call.events.untold == [session]
    assert worker.told == ["life-1.created"]
    assert worker.outbox.take_back({"life-1.created"}) == set(), "it was taken back"


@pytest.mark.parametrize("told", [False, True])
async def test_an_end_that_is_on_its_way_when_the_call_is_released_waits_for_the_recipe_if_the_link_is_lost(told: bool):
    worker = mine()
    call, recipe = held(worker)
    worker.calls.leave_to_placer(call)
    await worker.calls.release(call)
    assert worker.told == ["life-1"], "it is ours to tell: we hold the recipe"
    worker.lose_link()
    assert worker.outbox.take_back({"life-1"}) == set(), "it was taken back"
    worker.calls.recipe_arrived(delivered(recipe, told=told), recipe)
    assert worker.told == ["life-1"] * (1 if told else 2)
