"""Whose it is to tell of a session's end: who has its recipe."""

from dataclasses import dataclass

from consumer.broker.message import Delivery, Message
from consumer.broker.outbox import Outbox
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names
from consumer.calls.events import Reporter
from consumer.calls.owned_call import OwnedCall
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.calls.requests.idempotency import AnswerWindows
from schemas.events import CONTENT_TYPE, SessionEventType, session_event
from schemas.ids import CallId, WorkerId
from schemas.internal import Recipe

CALL = CallId("c-1")
ME = WorkerId("w-1")
INFO = {"worker_id": ME, "session_id": CALL, "service_name": "echo"}


class KeptOutbox(Outbox):
    """An outbox without a link, that says which events were put into it."""

    def __init__(self, publisher: Publisher) -> None:
        super().__init__(publisher)
        self.lives: list[str | None] = []

    def put(self, message: Message, exchange: str, routing_key: str) -> None:
        super().put(message, exchange, routing_key)
        if message.content_type == CONTENT_TYPE:
            self.lives.append(message.message_id)


@dataclass
class Mine:
    """The calls of a worker without a link, and the lives whose end it has told."""

    calls: OwnedCalls
    outbox: KeptOutbox

    @property
    def told(self) -> list[str | None]:
        return self.outbox.lives


def mine() -> Mine:
    names, publisher = Names(), Publisher()
    outbox = KeptOutbox(publisher)
    reporter = Reporter(ME, names, outbox)
    return Mine(OwnedCalls(ME, names, publisher, reporter, AnswerWindows(1 << 20)), outbox)


def delivered(recipe: Recipe) -> Delivery:
    return Delivery(Message(recipe.model_dump_json().encode()), "inbox", "", "", False, 0.0, None)


def held(mine: Mine, life: str = "life-1") -> tuple[OwnedCall, Recipe]:
    """A call whose session has ended, which nobody was told of, and whose recipe the broker keeps for us."""
    call = mine.calls.own(CALL)
    call.events.postpone(session_event(SessionEventType.CLOSED, INFO, life))
    mine.calls.write_recipe(call)
    recipe = mine.calls.recipe(call, [])
    assert mine.calls.recipe_arrived(delivered(recipe), recipe) is None
    return call, recipe


async def test_what_the_placer_has_the_recipe_of_is_told_by_the_placer():
    worker = mine()
    call, _ = held(worker)
    worker.calls.detach()
    assert call.recipe.given_back
    assert not call.may_tell
    worker.calls.leave_to_placer(call)
    await worker.calls.release(call)
    assert worker.told == []


async def test_a_recipe_that_comes_back_after_all_is_told_of_by_us():
    worker = mine()
    call, recipe = held(worker)
    worker.calls.detach()
    worker.calls.leave_to_placer(call)
    await worker.calls.release(call)
    again = delivered(recipe)
    assert worker.calls.recipe_arrived(again, recipe) is again, "nobody needs it any more"
    assert worker.told == ["life-1"]
    worker.calls.recipe_arrived(again, recipe)
    assert worker.told == ["life-1"], "once"


async def test_every_recipe_that_is_on_its_way_has_to_come_back():
    worker = mine()
    call, older = held(worker)
    worker.calls.detach()
    worker.calls.write_recipe(call)  # it was on its way when the link was lost
    newer = worker.calls.recipe(call, [])
    worker.calls.recipe_arrived(delivered(newer), newer)
    worker.calls.detach()
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
