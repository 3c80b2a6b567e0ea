"""What keeps a call recoverable, in the order in which the broker gets it, and what a look at the calls leads to.

The owner consumes its own inbox on the simulated broker; its sessions are on simulated servers.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from structlog.testing import capture_logs

from consumer.broker.message import Delivery, Message
from consumer.calls.events import Reporter
from consumer.calls.owned_call import RENEW_AFTER, Reason
from consumer.calls.ownership.recovery import ASK_AT_ONCE, LOOK_EVERY
from consumer.calls.ownership.upkeep import MISSING_AFTER
from consumer.calls.routes import CALL_KEY
from consumer.concurrency.task_set import cancel_and_wait
from schemas.calls import CallKind
from schemas.events import EndReason
from schemas.ids import CallId, SessionId, WorkerId
from schemas.internal import EndedCalls, OwnerCheck, Recipe, SessionRecipe
from schemas.requests import CallStarted
from tests.calls.owner_parts import CALL, ECHO, GRACE, ME
from tests.calls.owning import A_WHILE, owning
from tests.calls.presences import report_of
from tests.virtual_time import in_virtual_time, moment, passes

ID = SessionId(CALL)
STARTED = CallStarted(call_id=CALL, kind=CallKind.STARTED, source="test")

# Recipes and what is told.


@in_virtual_time
async def test_a_session_is_told_of_behind_its_recipe_and_reported_when_the_broker_has_both():
    async with owning() as scene:
        await scene.open()
        assert scene.parts.call.recipe.dirty
        await scene.parts.recovery.keep(CALL)
        assert (scene.parts.recovery.told, scene.reports) == (scene.parts.call.recipe.revision, 1)
        assert not scene.parts.call.events.unconfirmed
        assert not scene.parts.call.recipe.dirty
        assert (await scene.told())[-2:] == ["call.recipe", "created"]
        await scene.parts.recovery.keep(CALL)
        assert await scene.told() == [], "the recipe names the session as it is"
        assert scene.reports == 1


@in_virtual_time
async def test_a_session_that_waits_for_nothing_more_is_told_of_without_another_recipe():
    async with owning() as scene:
        session = await scene.opened()
        scene.parts.call.events.wait_for_recipe(session)
        await scene.parts.recovery.keep(CALL)
        assert await scene.told() == ["created"]


@in_virtual_time
async def test_the_placer_is_told_of_the_newest_recipe_that_the_broker_has():
    async with owning() as scene:
        await scene.opened()
        scene.parts.recovery._told = 100
        scene.parts.call.recipe.outdate()
        await scene.parts.recovery.keep(CALL)
        assert (scene.parts.recovery.told, scene.reports) == (100, 1), "another call has a newer one"


@in_virtual_time
async def test_a_recipe_goes_when_the_end_has_been_told_and_then_the_call():
    async with owning() as scene:
        session = await scene.opened()
        await scene.close()
        assert await scene.told() == ["closed", "ack", "unbind", "unbind"]
        assert session.end_reason is EndReason.REQUESTED
        assert scene.parts.owned_calls.calls == {}
        await scene.parts.recovery.keep(CALL)
        assert await scene.told() == [], "it is not ours"


@in_virtual_time
async def test_of_a_call_that_has_ended_the_recipe_goes_and_the_call_stays():
    async with owning() as scene:
        await scene.opened()
        scene.parts.call.tenure.end(asyncio.get_running_loop().call_later(60, lambda: None))
        await scene.close()
        assert await scene.told() == ["closed", "ack"]
        assert scene.parts.owned_calls.is_ours(scene.parts.call)


@in_virtual_time
async def test_while_an_end_is_not_ours_to_tell_nothing_changes():
    async with owning() as scene:
        await scene.opened()
        scene.parts.call.check.link_lost()
        await scene.close()
        await scene.parts.recovery.keep(CALL)
        assert await scene.told() == []
        assert len(scene.parts.call.events.pending) == 1
        assert scene.parts.call.recipe.held is not None
        assert await scene.parts.recovery.still_ours(scene.parts.call)
        assert await scene.told() == ["closed"]
        await scene.parts.recovery.keep(CALL)
        assert await scene.told() == ["ack", "unbind", "unbind"]


@in_virtual_time
async def test_an_end_that_waits_is_told_without_waiting_for_the_lane_of_its_call():
    async with owning() as scene:
        await scene.opened()
        scene.parts.call.check.link_lost()
        await scene.close()
        scene.parts.lanes.submit(CALL, partial(asyncio.sleep, 5))
        scene.parts.recovery.tell_ends_soon(scene.parts.call)
        assert await scene.told() == [], "it is not known yet whose it is"
        scene.parts.call.check.confirmed(0.0)
        scene.parts.recovery.tell_ends_soon(scene.parts.call)
        assert await scene.told() == ["closed"]


@in_virtual_time
async def test_without_the_broker_nothing_is_lost_and_it_is_caught_up_with_later():
    async with owning() as scene:
        session = await scene.open()
        await scene.told()
        reporter = Reporter(ME, scene.wire.names, scene.parts.outbox)
        scene.parts.call.events.postpone("life", reporter.ended(session, EndReason.IDLE, {}))
        await scene.channel.close()
        await scene.parts.recovery.keep_or_retry(CALL)
        assert (scene.parts.call.recipe.dirty, await scene.told()) == (True, [])
        await scene.new_link()
        scene.parts.recovery.look()
        assert [one for one in await scene.told() if one != "bind"] == ["expired", "call.recipe", "created"]


@in_virtual_time
async def test_what_was_away_and_lost_is_told_by_the_owner_to_whom_its_recipe_comes():
    async with owning() as scene:
        await scene.opened()
        recipe = scene.recipe().model_copy(update={"worker_id": WorkerId("away"), "revision": 7})
        await scene.parts.recovery.tell_lost(recipe, {})
        assert await scene.told() == ["created", "lost"]
        scene.wire.node.set_alarm(on=True)
        telling = asyncio.create_task(scene.parts.recovery.tell_lost(recipe, {}))
        await passes(10)
        assert not telling.done(), "its recipe stands for it until RabbitMQ has it"
        scene.wire.node.set_alarm(on=False)
        await telling
        assert await scene.told() == ["created", "lost"]
        scene.parts.presence.heard(report_of(WorkerId("away"), told=7), ME)
        await scene.parts.recovery.tell_lost(recipe, {})
        assert await scene.told() == ["lost"]


# Answers.


@in_virtual_time
async def test_who_leaves_tells_of_a_session_without_a_recipe_only_when_it_holds_one():
    async with owning() as scene:
        await scene.open()
        await scene.told()
        assert await scene.parts.owner.leave(True, 10.0)
        story = [one for one in await scene.told() if one not in ("ack", "bind", "unbind")]
        assert story == ["call.recipe", "created", "closed", "call.recipe"], "the last one goes to another worker"


@in_virtual_time
async def test_a_call_without_sessions_is_kept_for_its_answers_as_long_as_a_tombstone():
    async with owning() as scene:
        await scene.opened()
        await scene.answered()
        await scene.close()
        assert await scene.told() == ["closed", "ack"]
        assert scene.parts.call.tenure.reason is Reason.ANSWERS
        await passes(scene.parts.configured.timings.tombstone - 2 * A_WHILE)
        await scene.parts.recovery.keep(CALL)
        assert scene.parts.owned_calls.is_ours(scene.parts.call), "and that is no new wait"
        await passes(A_WHILE)
        assert await scene.told() == ["unbind", "unbind"]
        assert scene.parts.owned_calls.calls == {}


@in_virtual_time
async def test_a_call_whose_tool_call_still_runs_is_kept_once_more():
    async with owning() as scene:
        await scene.opened()
        tombstone = scene.parts.configured.timings.tombstone
        with scene.parts.call.in_use():
            await scene.close()
            await passes(tombstone + A_WHILE)
            assert scene.parts.owned_calls.is_ours(scene.parts.call)
        await passes(tombstone - 2 * A_WHILE)
        assert scene.parts.owned_calls.is_ours(scene.parts.call)
        await passes(2 * A_WHILE)
        assert scene.parts.owned_calls.calls == {}


@in_virtual_time
async def test_a_call_that_was_kept_for_its_answers_and_has_a_session_again_stays():
    async with owning() as scene:
        await scene.opened()
        await scene.answered()
        await scene.close()
        await scene.told()
        session = await scene.opened()
        await passes(2 * scene.parts.configured.timings.tombstone)
        assert list(scene.parts.call.sessions.values()) == [session]
        assert scene.parts.owned_calls.is_ours(scene.parts.call)


# After a lost link.


@in_virtual_time
async def test_who_was_away_asks_whether_the_call_is_its_own_and_writes_its_recipe_anew():
    async with owning() as scene:
        await scene.opened()
        await scene.lose_link()
        assert not scene.parts.call.may_tell
        await scene.new_link()
        with capture_logs() as logs:
            scene.parts.recovery.look()
            assert await scene.told() == ["owner.check", "bind", "call.recipe", "ack", "ack"]
        assert scene.parts.call.may_tell
        assert scene.parts.call.bound_to == "fast.2"
        assert not [one for one in logs if one["event"].startswith("recovery.")], "nothing to tell people"
        scene.parts.recovery.look()
        assert await scene.told() == [], "once"


@in_virtual_time
async def test_our_own_answer_leaves_what_is_not_in_doubt_as_it_is():
    async with owning() as scene:
        await scene.opened()
        assert not await scene.parts.recovery.still_ours(scene.parts.call)
        assert not scene.parts.call.recipe.dirty
        scene.parts.call.check.link_lost()
        await scene.close()
        assert await scene.parts.recovery.still_ours(scene.parts.call)
        assert not scene.parts.call.sessions


@in_virtual_time
async def test_the_question_goes_to_whoever_owns_the_call_now():
    async with owning() as scene:
        await scene.opened()
        await scene.lose_link()
        await (await scene.wire.link.channel()).unbind(scene.binding)
        unowned = await scene.wire.consume(scene.wire.names.unowned)
        await scene.new_link()
        scene.parts.recovery.look()
        question = await unowned.next()
        assert (question.type, question.routing_key) == (OwnerCheck.type, CALL)
        asked = OwnerCheck.model_validate_json(question.message.body)
        assert (asked.call_id, asked.worker_id) == (CALL, ME)
        assert question.message.reply_to == scene.wire.names.worker(ME, "2")
        assert scene.parts.call.check.in_doubt, "until the answer has come"


@in_virtual_time
async def test_not_all_calls_are_asked_for_at_once():
    async with owning() as scene:
        unowned = scene.wire.names.unowned
        scene.wire.node.leaderless[unowned] = asyncio.get_running_loop().time() + 10
        for number in range(3 * ASK_AT_ONCE):
            scene.parts.owned_calls.own(CallId(f"c-{number + 2}")).check.link_lost()
        frames: list[str] = []
        scene.wire.node.trace = lambda _who, method, _args: frames.append(method)
        scene.parts.recovery.look()
        await passes(A_WHILE)
        assert frames.count("basic_publish") == ASK_AT_ONCE
        await passes(30)
        assert frames.count("basic_publish") == 3 * ASK_AT_ONCE


@in_virtual_time
async def test_a_question_that_cannot_be_asked_is_asked_again_and_told_to_people_once():
    async with owning() as scene:
        await scene.opened()
        await scene.lose_link()
        await scene.new_link()
        scene.wire.publisher.detach()
        with capture_logs() as logs:
            for _ in range(2):
                scene.parts.recovery.look()
                await passes(A_WHILE)
            assert scene.parts.call.check.in_doubt
            scene.wire.publisher.attach(await scene.wire.link.publishing(signed=True))
            scene.parts.recovery.look()
            await passes(A_WHILE)
            assert not scene.parts.call.check.in_doubt
            scene.parts.recovery.look()
            await scene.parts.recovery.still_ours(scene.parts.call)
        told = [one["event"] for one in logs if one["event"].startswith("recovery.")]
        assert told == ["recovery.owner_check_retry", "recovery.owner_checked"]


@in_virtual_time
async def test_a_call_that_is_let_go_is_not_asked_for_when_its_turn_comes():
    async with owning() as scene:
        await scene.opened()
        scene.parts.call.check.link_lost()
        scene.parts.recovery.look()
        del scene.parts.owned_calls.calls[CALL]
        assert await scene.told() == []


@in_virtual_time
async def test_a_recipe_that_comes_back_lets_its_ends_be_told_and_the_call_go():
    async with owning() as scene:
        await scene.opened()
        await scene.lose_link()
        await scene.close()
        await scene.parts.recovery.keep(CALL)
        assert await scene.told() == [], "the recipe may be a placer's"
        scene.parts.call.check.confirmed(0.0)
        scene.parts.call.recipe.dirty = False  # it is owned for the sake of that end only
        scene.parts.recovery.recipe_is_back(CallId("c-2"))
        await scene.new_link()
        assert [one for one in await scene.told() if one != "bind"] == ["closed", "ack", "unbind"]
        assert scene.parts.owned_calls.calls == {}


@in_virtual_time
async def test_an_end_whose_recipe_comes_back_is_told_without_waiting_for_the_lane_of_its_call():
    async with owning() as scene:
        await scene.opened()
        await scene.lose_link()
        await scene.close()
        scene.parts.call.check.confirmed(0.0)
        scene.parts.lanes.submit(CALL, partial(asyncio.sleep, 5))
        await scene.new_link()
        assert await scene.told() == ["closed"]


@in_virtual_time
async def test_a_recipe_that_comes_back_clean_to_a_call_with_sessions_changes_nothing():
    async with owning() as scene:
        await scene.opened()
        await scene.lose_link()
        scene.parts.call.check.confirmed(0.0)
        await scene.new_link()
        await scene.told()
        assert scene.parts.call.recipe.held is not None
        scene.parts.recovery.recipe_is_back(CALL)
        assert await scene.told() == []
        scene.parts.call.recipe.outdate()
        scene.parts.recovery.recipe_is_back(CALL)
        assert (await scene.told())[0] == "call.recipe"


# Looking at the calls now and then.


@in_virtual_time
async def test_without_a_link_nothing_is_looked_at():
    async with owning() as scene:
        await scene.opened()
        scene.parts.call.recipe.outdate()
        await scene.lose_link()
        scene.parts.recovery.look()
        assert await scene.told() == []
        assert not scene.parts.lanes.busy(CALL)


@in_virtual_time
async def test_recipes_are_written_anew_before_the_broker_wants_them_back():
    async with owning() as scene:
        await scene.opened()
        looking = asyncio.create_task(scene.parts.recovery.run())
        await passes(RENEW_AFTER - 2 * LOOK_EVERY)
        assert "call.recipe" not in await scene.told()
        await passes(3 * LOOK_EVERY)
        assert [one for one in await scene.told() if one != "owner.check"][:2] == ["call.recipe", "ack"]
        await cancel_and_wait(looking)


@in_virtual_time
async def test_a_recipe_that_stays_away_is_replaced_by_one_of_another_life():
    async with owning() as scene:
        session = await scene.opened()
        life, session_id = session.life, session.session_id
        scene.parts.call.recipe.link_lost()
        looking = asyncio.create_task(scene.parts.recovery.run())
        await passes(GRACE + MISSING_AFTER - LOOK_EVERY - A_WHILE)
        assert await scene.told() == [], "it may be on its way for so long"
        with capture_logs() as logs:
            await passes(2 * LOOK_EVERY)
        assert (await scene.told())[:2] == ["call.recipe", "created"]
        assert session.life != life
        assert scene.parts.call.sessions == {session_id: session}
        assert scene.parts.call.may_tell
        assert [one["revisions"] for one in logs if one["event"] == "recovery.recipe_missing"] == [[1]]
        await cancel_and_wait(looking)


@in_virtual_time
async def test_a_call_that_has_ended_elsewhere_is_closed():
    async with owning() as scene:
        session = await scene.opened()
        later = (scene.parts.call.owned_since.timestamp()) + 1
        told = EndedCalls(worker_id=WorkerId("w-2"), ended={CALL: later})
        body = told.model_dump_json().encode()
        scene.parts.endings.hear(Delivery(Message(body, type=EndedCalls.type), "", "", "", False, 0.0, None))
        await passes(2)
        scene.parts.recovery.look()
        assert "closed" in await scene.told()
        assert session.end_reason is EndReason.CALL_ENDED
        assert scene.parts.owned_calls.calls == {}


@in_virtual_time
async def test_a_recipe_that_a_lost_link_has_taken_back_is_not_acknowledged_over_it():
    async with owning() as scene:
        session = await scene.opened()
        held = scene.parts.call.recipe.held
        assert held is not None
        scene.wire.node.set_alarm(on=True)
        reporter = Reporter(ME, scene.wire.names, scene.parts.outbox)
        reporter.publish(reporter.ended(session, EndReason.IDLE, {}))
        freeing = asyncio.create_task(scene.parts.owned_calls.free(held))
        await passes(1)
        scene.parts.owned_calls.detach()  # the worker counts on the recipe, and its old link is still open
        scene.wire.node.set_alarm(on=False)
        await freeing
        assert "ack" not in await scene.told()


@pytest.mark.parametrize(
    ("opened_by", "closed"),
    [("a start from before the end", True), ("a recipe from before the end", True), ("a command", False)],
)
@in_virtual_time
async def test_an_end_that_is_heard_of_late_closes_what_it_would_have_kept_out(opened_by: str, closed: bool):
    async with owning() as scene:
        ended = datetime.fromtimestamp(moment(), UTC) - timedelta(seconds=120)  # its tombstone is over
        before = ended - timedelta(seconds=10)
        if opened_by == "a command":
            await scene.open()
        elif opened_by == "a recipe from before the end":
            one = SessionRecipe(
                session_id=ID, service_name=ECHO, created_at=before, last_accessed=before, timeout=3600.0,
                metadata={CALL_KEY: STARTED.model_dump(mode="json")}, life="life",
            )  # fmt: skip
            await scene.parts.carry_out(Recipe(call_id=CALL, worker_id=WorkerId("w-2"), revision=1, sessions=[one]))
        else:
            await scene.parts.carry_out(STARTED, timestamp=before)
        await scene.parts.recovery.keep(CALL)
        sessions = list(scene.parts.call.sessions.values())
        assert sessions
        told = EndedCalls(worker_id=WorkerId("w-2"), ended={CALL: ended.timestamp()})
        body = told.model_dump_json().encode()
        scene.parts.endings.hear(Delivery(Message(body, type=EndedCalls.type), "", "", "", False, 0.0, None))
        await passes(2)
        scene.parts.recovery.look()
        await scene.told()
        assert {one.end_reason for one in sessions} == {EndReason.CALL_ENDED if closed else None}


@in_virtual_time
async def test_a_binding_that_could_not_be_taken_away_is_taken_away_later():
    async with owning() as scene:
        await scene.opened()
        await scene.lose_link()
        await scene.parts.owned_calls.release(scene.parts.call)
        assert scene.parts.owned_calls.leaked == {CALL}
        bindings = scene.wire.node.exchanges[scene.wire.names.sessions]
        await scene.new_link()
        await scene.channel.close()
        scene.parts.recovery.look()
        await passes(A_WHILE)
        assert scene.parts.owned_calls.leaked == {CALL}, "that channel is lost as well"
        await scene.new_link()
        scene.parts.recovery.look()
        await passes(A_WHILE)
        assert (scene.parts.owned_calls.leaked, bindings.route(CALL, {})) == (set(), [])
