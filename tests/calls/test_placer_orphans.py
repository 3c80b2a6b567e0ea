"""The placer on the simulated broker: what comes back from the inbox of a worker that has died, or does not own a call.

A message that nobody consumes takes RabbitMQ's own way here: out of the inbox after a second, and out of the queue of
orphans after the grace.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.broker.topology import Binding, inbox
from consumer.calls.placement.decisions import MAX_DEATHS
from consumer.calls.placement.placer import REORDER
from schemas import headers
from schemas.calls import CallKind
from schemas.ids import WorkerId, routing_key
from schemas.internal import Recipe
from tests.calls.placing import CALL, LONG, ME, OTHER, OWNER, PlacerScene, kept, placing
from tests.virtual_time import in_virtual_time, moment, passes

DEAD = WorkerId("dead")


async def owned_by(scene: PlacerScene, worker: WorkerId) -> None:
    """The call's messages go to the inbox of a worker, which consumes nothing if it is dead."""
    if worker == DEAD:
        await scene.wire.declare(inbox(scene.names, DEAD))
    await scene.unowned.bind(Binding(scene.names.sessions, scene.names.inbox(worker), routing_key(CALL)))


def dead_and_told(**more: Any) -> dict[str, Any]:
    """The headers of what a dead worker's inbox gave up, when it has been sent again and reached nobody."""
    return {headers.ORPHAN_OF: DEAD, headers.RESENT: True, headers.LATE: True} | more


@in_virtual_time
async def test_what_a_dead_workers_inbox_gives_up_goes_to_another_worker():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        scene.workers.report(DEAD, sessions=3)
        scene.workers.die(DEAD)
        began = moment()
        with capture_logs() as logs:
            await scene.start()
            placed = await scene.arrived()
        assert moment() - began > 5, "its worker may come back within the grace"
        assert [one["event"] for one in logs].count("placer.owner_gone") == 1, "though it came twice"
        gone = [one for one in logs if one["event"] == "placer.worker_gone"]
        assert [(one["log_level"], one["worker_id"], one["sessions"]) for one in gone] == [("warning", DEAD, 3)]
        given = placed.message.headers
        assert (given[headers.PLACEMENT], given[headers.DEATHS]) == (f"{ME}/1", 1)
        assert not {"x-death", headers.ORPHAN_OF, headers.RESENT, headers.LATE} & given.keys()
        assert scene.bound() == [scene.names.inbox(OWNER)], "nothing more of it leads to the dead"
        await scene.nothing_more()


@in_virtual_time
async def test_that_a_worker_is_gone_is_logged_once_for_all_messages_of_a_call():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        with capture_logs() as logs:
            await scene.start()
            await scene.event(CallKind.PROGRESS)
            await scene.event(CallKind.PROGRESS)
            for _ in range(3):
                await scene.arrived()
        assert [one["event"] for one in logs].count("placer.owner_gone") == 1


@in_virtual_time
async def test_what_a_dead_workers_inbox_gives_up_reaches_the_owner_that_the_call_has_since():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        await scene.start()
        await passes(0.1)
        await owned_by(scene, OTHER)  # another placer has placed it meanwhile
        again = await scene.arrived(OTHER)
        given = again.message.headers
        assert (given[headers.RESENT], given[headers.LATE], given[headers.ORPHAN_OF]) == (True, True, DEAD)
        await scene.nothing_more()


@in_virtual_time
async def test_what_was_sent_again_to_an_inbox_that_gives_it_up_is_sent_again_before_it_is_placed():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        await scene.start(given={headers.ORPHAN_OF: "another", headers.RESENT: True, headers.LATE: True})
        await passes(0.1)
        await owned_by(scene, OTHER)  # another placer has placed it meanwhile
        again = await scene.arrived(OTHER)
        given = again.message.headers
        assert (given[headers.RESENT], given[headers.ORPHAN_OF]) == (True, DEAD)
        assert scene.bound() == [scene.names.inbox(OTHER)]
        await scene.nothing_more()


@in_virtual_time
async def test_what_the_inbox_of_a_living_worker_gives_up_goes_back_there():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        await scene.start()
        await passes(3)
        scene.workers.report(DEAD)  # it was only cut off
        taken = await scene.wire.consume(scene.names.inbox(DEAD))
        back = await taken.next()
        assert (back.message.headers[headers.LATE], back.exchange) == (True, "")
        assert not {headers.ORPHAN_OF, headers.PLACEMENT, "x-death"} & back.message.headers.keys()
        assert scene.bound() == [scene.names.inbox(DEAD)]
        await scene.nothing_more()


async def another_placer_takes(scene: PlacerScene) -> None:
    """Have what the dead worker's inbox gives up delivered to a placer that loses its link, and then to the next."""
    await scene.placer.detach()  # it settles nothing
    await passes(7)
    scene.workers.report(DEAD)  # it is back
    fresh = await scene.wire.link.channel()
    scene.placer.attach(fresh)
    await scene.unowned.close()
    await fresh.consume(scene.names.unowned, scene.placer.take)


@in_virtual_time
async def test_what_a_former_placer_had_of_a_living_worker_goes_back_by_the_binding():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        await scene.recipe(DEAD)
        await another_placer_takes(scene)
        taken = await scene.wire.consume(scene.names.inbox(DEAD))
        given = (await taken.next()).message.headers
        assert (given[headers.RESENT], given[headers.ORPHAN_OF]) == (True, DEAD), "it may have gone on as orphaned"
        assert headers.LOST not in given
        assert scene.told() == [], "its worker has it, so nobody reported its sessions"
        await scene.nothing_more()


@in_virtual_time
async def test_what_a_former_placer_had_is_told_lost_if_it_has_taken_the_call_away():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        await scene.recipe(DEAD)
        await passes(0.1)
        await scene.unowned.unbind(Binding(scene.names.sessions, inbox(scene.names, DEAD).name, routing_key(CALL)))
        await another_placer_takes(scene)
        taken = await scene.wire.consume(scene.names.inbox(DEAD))
        back = (await taken.next()).message.headers
        assert (back[headers.LATE], back[headers.LOST]) == (True, True), "its worker goes on with another life"
        assert scene.told() == [(CALL, "created"), (CALL, "lost")]


@in_virtual_time
async def test_the_call_of_a_worker_that_came_back_too_late_is_its_own_again_if_nobody_has_it():
    async with placing() as scene:
        await scene.wire.declare(inbox(scene.names, DEAD))
        taken = await scene.wire.consume(scene.names.inbox(DEAD))
        scene.workers.report(DEAD)
        await scene.start(given=dead_and_told())
        back = await taken.next()
        given = back.message.headers
        assert (given[headers.PLACEMENT], given[headers.LATE]) == (f"{ME}/1", True)
        assert scene.bound() == [scene.names.inbox(DEAD)]
        await scene.nothing_more()


@in_virtual_time
async def test_the_call_of_a_worker_that_came_back_too_late_stays_where_it_was_placed_since():
    async with placing() as scene:
        await scene.wire.declare(inbox(scene.names, DEAD))
        await scene.start()
        await scene.arrived()
        scene.workers.report(DEAD)
        await scene.start(given=dead_and_told(), exchange=scene.names.unowned)
        late = await scene.arrived()
        assert late.message.headers[headers.BELIEVED] == f"{ME}/1"
        assert scene.bound() == [scene.names.inbox(OWNER)]
        await scene.nothing_more()


@in_virtual_time
async def test_a_worker_that_comes_back_while_it_is_declared_dead_has_its_call_again():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        scene.workers.echo_after = 2.0  # what the others have reported is heard before that
        await scene.recipe(DEAD)
        while scene.bound():
            await passes(0.1)
        scene.workers.report(DEAD)
        taken = await scene.wire.consume(scene.names.inbox(DEAD))
        given = (await taken.next()).message.headers
        assert given[headers.PLACEMENT] == f"{ME}/1"
        assert headers.DEATHS not in given
        assert given[headers.LOST] is True, "it counted as dead, so its sessions go on with new lives"
        assert scene.told() == [(CALL, "created"), (CALL, "lost")]
        assert scene.bound() == [scene.names.inbox(DEAD)]
        await scene.nothing_more()


# Tool calls and recipes.


@in_virtual_time
async def test_a_tool_call_that_a_dead_worker_had_is_executed_by_nobody():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        await scene.call_tool(fields={"service_name": "echo"})
        await passes(0.1)
        await owned_by(scene, OTHER)  # not by the owner that the call has since either
        await scene.nothing_more()


@pytest.mark.parametrize("given", [{headers.LATE: True}, dead_and_told(), {headers.LATE: True, headers.RESENT: True}])
@in_virtual_time
async def test_a_tool_call_that_another_may_have_had_is_executed_by_nobody(given: dict[str, Any]):
    async with placing() as scene:
        await scene.call_tool(fields={"service_name": "echo"}, given=given)
        await scene.nothing_more()


@in_virtual_time
async def test_another_use_that_a_dead_worker_had_is_placed():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        await scene.send("prompts.list", {"session_id": CALL, "service_name": "echo", "open": "beside"})
        assert (await scene.arrived()).type == "prompts.list"
        await scene.nothing_more()


@pytest.mark.parametrize(("told", "events"), [(0, ["created", "lost"]), (1, ["lost"])])
@in_virtual_time
async def test_what_a_dead_worker_had_is_told_before_its_recipe_goes_on(told: int, events: list[str]):
    async with placing() as scene:
        await owned_by(scene, DEAD)
        scene.workers.report(DEAD, told=told)
        scene.workers.die(DEAD)
        scene.wire.node.leaderless["events"] = asyncio.get_running_loop().time() + 15  # it takes its time
        await scene.recipe(DEAD)
        restored = await scene.arrived()
        assert scene.told() == [(CALL, one) for one in events]
        given = restored.message.headers
        assert (restored.type, given[headers.LOST], given[headers.DEATHS]) == (Recipe.type, True, 1)
        assert given[headers.PLACEMENT] == f"{ME}/1"
        await scene.nothing_more()


@pytest.mark.parametrize(
    ("why", "given"),
    [
        ("it was told before it was sent again", dead_and_told(**{headers.LOST: True})),
        ("it was handed over, and its worker told of its sessions", {headers.RETURNED: DEAD}),
    ],
)
@in_virtual_time
async def test_what_has_been_told_is_not_told_again(why: str, given: dict[str, Any]):
    async with placing() as scene:
        await scene.recipe(DEAD, given=given)
        assert (await scene.arrived()).type == Recipe.type
        assert scene.told() == [], why
        await scene.nothing_more()


@in_virtual_time
async def test_what_another_workers_inbox_gave_up_is_told_by_who_sent_it_there():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        await scene.recipe(OTHER)
        assert (await scene.arrived()).message.headers[headers.DEATHS] == 1
        assert scene.told() == []


@in_virtual_time
async def test_what_counted_as_lost_is_told_even_if_its_worker_has_come_back_since():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        scene.workers.report(DEAD)  # a former placer may have told it, and not have said so in the recipe
        await scene.unowned.unbind(Binding(scene.names.sessions, inbox(scene.names, DEAD).name, routing_key(CALL)))
        await scene.recipe(DEAD, given=dead_and_told())
        taken = await scene.wire.consume(scene.names.inbox(DEAD))
        back = (await taken.next()).message.headers
        assert (back[headers.LATE], back[headers.LOST]) == (True, True), "its worker goes on with another life"
        assert scene.told() == [(CALL, "created"), (CALL, "lost")]


@pytest.mark.parametrize("restored", [True, False])
@in_virtual_time
async def test_what_is_told_for_a_dead_worker_says_whether_the_session_was_restored(restored: bool):
    async with placing() as scene:
        given = dead_and_told(**{headers.RESTORED: "1" if restored else "0"})
        await scene.recipe(DEAD, given=given, sessions=[kept(restores=0 if restored else 1)])
        assert (await scene.arrived()).message.headers[headers.RESTORED] == given[headers.RESTORED]
        events = [json.loads((await scene.heard["events"].next()).message.body) for _ in range(2)]
        told = [(event["type"].removeprefix("mcp.session."), event["data"]["restored"]) for event in events]
        assert told == [("created", restored), ("lost", restored)]


@in_virtual_time
async def test_a_second_copy_of_what_was_told_lost_says_so_to_the_worker_that_has_come_back_since():
    async with placing() as scene:
        await owned_by(scene, DEAD)
        await scene.recipe(DEAD, given=dead_and_told())  # a former placer sent it again, and lost its acknowledgement
        await scene.recipe(DEAD, given=dead_and_told(), exchange=scene.names.unowned)
        assert (await scene.arrived()).message.headers[headers.LOST] is True
        scene.workers.report(DEAD)
        taken = await scene.wire.consume(scene.names.inbox(DEAD))
        assert (await taken.next()).message.headers[headers.LOST] is True
        assert scene.told() == [(CALL, "created"), (CALL, "lost")]


# Who dies with a message.


@pytest.mark.parametrize(("deaths", "poison"), [(MAX_DEATHS - 2, False), (MAX_DEATHS - 1, True)])
@in_virtual_time
async def test_what_too_many_workers_died_with_is_a_dead_letter(deaths: int, poison: bool):
    async with placing() as scene:
        await scene.start(given=dead_and_told(**{headers.DEATHS: deaths}))
        if poison:
            assert await scene.refused() == "INTERNAL"
            parked = await scene.heard["dead"].next()
            assert parked.type == "call.started"
            assert parked.message.headers["x-mcp-reason"] == "crash_loop"
        else:
            assert (await scene.arrived()).message.headers[headers.DEATHS] == deaths + 1
        await scene.nothing_more()


@in_virtual_time
async def test_sessions_that_too_many_workers_died_with_are_lost_for_good():
    async with placing() as scene:
        await scene.recipe(DEAD, given=dead_and_told(), sessions=[kept(restores=MAX_DEATHS - 1)])
        await passes(LONG)
        assert scene.told() == [(CALL, "created"), (CALL, "died")]
        assert scene.bound() == []
        await scene.nothing_more()


# Messages that another placer had, or that a worker has returned.


Send = Callable[[PlacerScene], Awaitable[None]]


@pytest.mark.parametrize(
    ("send", "late"),
    [(lambda scene: scene.start(), False), (lambda scene: scene.call_tool(fields={"service_name": "echo"}), True)],
    ids=["start", "tool call"],
)
@in_virtual_time
async def test_what_another_placer_had_is_sent_again_and_reaches_the_owner(send: Send, late: bool):
    async with placing() as scene:
        await scene.unowned.cancel(scene.consumer)
        former = await scene.wire.link.channel()
        await former.consume(scene.names.unowned, lambda _delivery: None)
        await send(scene)
        await passes(1)
        await owned_by(scene, OWNER)
        await scene.unowned.consume(scene.names.unowned, scene.placer.take)
        await former.close()
        again = await scene.arrived()
        assert again.message.headers[headers.RESENT] is True
        assert (headers.LATE in again.message.headers) is late
        assert headers.ORPHAN_OF not in again.message.headers
        await scene.nothing_more()


@in_virtual_time
async def test_later_messages_of_a_call_keep_behind_the_one_that_is_sent_again():
    async with placing() as scene:
        await scene.unowned.cancel(scene.consumer)
        former = await scene.wire.link.channel(prefetch=1)
        await former.consume(scene.names.unowned, lambda _delivery: None)
        await scene.send("session.create", {"session_id": CALL, "service_name": "echo"})
        await scene.send("session.close", {"session_id": CALL})
        await passes(0.1)
        await scene.unowned.consume(scene.names.unowned, scene.placer.take)
        await former.close()
        kinds = [(await scene.arrived()).type for _ in range(2)]
        assert kinds == ["session.create", "session.close"]
        await scene.send("session.close", {"session_id": CALL}, exchange=scene.names.unowned)
        assert (await scene.arrived()).message.headers[headers.BELIEVED] == f"{ME}/1", "it waits for nothing more"
        await scene.nothing_more()


@in_virtual_time
async def test_a_start_that_is_sent_again_waits_for_room_no_longer_than_it_would_have():
    async with placing() as scene:
        began = moment()
        await owned_by(scene, OWNER)
        await scene.start(given={headers.RETURNED: OTHER})
        await scene.arrived()
        await scene.start(given={headers.RETURNED: OTHER}, exchange=scene.names.unowned)
        again = await scene.arrived()
        assert int(again.message.headers[headers.ADMISSION]) / 1000 == pytest.approx(began + 2.0, abs=0.1)


@in_virtual_time
async def test_a_call_that_its_worker_disowns_is_placed_on_another_that_may_have_it():
    async with placing() as scene:
        scene.workers.report(OTHER)
        scene.workers.report(OWNER, sessions=3)
        await scene.start()
        placed = await scene.arrived(OTHER)
        number = placed.message.headers[headers.PLACEMENT]
        await scene.start(given={headers.REFUSED: OTHER, headers.DISOWNED: number}, exchange=scene.names.unowned)
        elsewhere = await scene.arrived(OWNER)
        assert elsewhere.message.headers[headers.PLACEMENT] == f"{ME}/2"
        assert scene.bound() == [scene.names.inbox(OWNER)]
        await scene.nothing_more()


@in_virtual_time
async def test_who_has_refused_a_start_is_not_asked_again_and_it_is_rejected_when_its_wait_is_over():
    async with placing() as scene:
        refused = {headers.REFUSED: OWNER, headers.RESENT: True}
        await scene.start(given=refused | {headers.ADMISSION: headers.milliseconds(moment() + 1)})
        assert await scene.refused() == "CAPACITY"
        over = moment()
        scene.workers.report(OTHER)
        await scene.start(given=refused | {headers.ADMISSION: headers.milliseconds(over - 1)})
        assert await scene.refused() == "CAPACITY", "though there is room now: its place was taken"
        assert moment() - over < REORDER
        await passes(LONG)
        assert scene.told() == [(CALL, "rejected")] * 2


@in_virtual_time
async def test_what_comes_back_unplaced_is_sent_again_before_it_is_placed_anew():
    async with placing() as scene:
        await owned_by(scene, OTHER)
        await scene.start(given={headers.RETURNED: OWNER}, exchange=scene.names.unowned)
        again = await scene.arrived(OTHER)
        assert again.message.headers[headers.RESENT] is True
        assert json.loads(again.message.body)["call_id"] == CALL
        await scene.nothing_more()
