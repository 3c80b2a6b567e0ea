"""Whose it is to tell of a session's end: who has its recipe."""

from collections.abc import Callable

from consumer.broker.message import Delivery, Message
from consumer.calls.owned_call import OwnedCall
from consumer.calls.ownership.owned_calls import Holdings
from consumer.settings import load_settings
from consumer.worker.wiring import Parts
from schemas.ids import CallId
from schemas.internal import Recipe

CALL = CallId("c-1")


def holdings() -> Holdings:
    """A worker's, that has no link."""
    return Parts(load_settings(None, {"MCP_SESSIONS_WORKER_ID": "w-1"})).owner.holdings


def delivered(recipe: Recipe) -> Delivery:
    return Delivery(Message(recipe.model_dump_json().encode()), "inbox", "", "", False, 0.0, None)


def held(mine: Holdings, tell: Callable[[], None]) -> tuple[OwnedCall, Recipe]:
    """A call whose session has ended, which nobody was told of, and whose recipe the broker keeps for us."""
    call = mine.own(CALL)
    call.untold_ends.append(tell)
    mine.write_recipe(call)
    recipe = mine.recipe(call, [])
    assert mine.recipe_arrived(delivered(recipe), recipe) is None
    return call, recipe


async def test_what_the_placer_has_the_recipe_of_is_told_by_the_placer():
    mine, told = holdings(), []
    call, _ = held(mine, lambda: told.append(CALL))
    mine.detach()
    assert call.given_back
    mine.leave_to_placer(call)
    await mine.release(call)
    assert told == []


async def test_a_recipe_that_comes_back_after_all_is_told_of_by_us():
    mine, told = holdings(), []
    call, recipe = held(mine, lambda: told.append(CALL))
    mine.detach()
    mine.leave_to_placer(call)
    await mine.release(call)
    again = delivered(recipe)
    assert mine.recipe_arrived(again, recipe) is again, "nobody needs it any more"
    assert told == [CALL]
    mine.recipe_arrived(again, recipe)
    assert told == [CALL], "once"


async def test_every_recipe_that_is_on_its_way_has_to_come_back():
    mine, told = holdings(), []
    call, older = held(mine, lambda: told.append(CALL))
    mine.detach()
    mine.write_recipe(call)  # it was on its way when the link was lost
    newer = mine.recipe(call, [])
    mine.recipe_arrived(delivered(newer), newer)
    mine.detach()
    mine.leave_to_placer(call)
    mine.recipe_arrived(delivered(newer), newer)
    assert told == [], "the placer may have told of it with the older one"
    mine.recipe_arrived(delivered(older), older)
    assert told == [CALL]


async def test_a_recipe_of_an_earlier_life_is_not_taken_for_that_of_a_later_one():
    mine, told = holdings(), []
    call, recipe = held(mine, lambda: told.append(CALL))
    await mine.release(call)
    assert told == [CALL]
    later, _ = held(mine, lambda: None)
    old = delivered(recipe)
    kept = later.held
    assert mine.recipe_arrived(old, recipe) is old
    assert later.held is kept
