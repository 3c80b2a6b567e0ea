"""The placer on the simulated broker: which worker gets a call, and what else is answered, sent on or refused."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from consumer.broker.message import CALL_HEADER, Delivery, Message
from consumer.broker.topology import Binding
from consumer.calls.cluster.inbox_probe import PROBE
from consumer.calls.placement.placer import REORDER
from consumer.processes.service import MCPService
from schemas import headers
from schemas.base import Json
from schemas.calls import CallKind
from schemas.ids import CallId, WorkerId, routing_key
from schemas.internal import EndedCalls, OwnerCheck
from schemas.sessions import ServiceLoad
from tests.calls.owner_parts import GRACE
from tests.calls.placing import CALL, ECHO, LONG, ME, OTHER, OWNER, TODO, PlacerScene, kept, placing
from tests.calls.simulated_link import delivered
from tests.virtual_time import in_virtual_time, moment, now, passes

WAIT = 2.0
"""How long (s) a start waits for room."""


async def ended(scene: PlacerScene) -> None:
    """The call has ended, and nobody owns it."""
    await scene.end()
    assert (await scene.reply()).unwrap() == {"closed": []}


# Starts.


@in_virtual_time
async def test_a_start_is_bound_to_a_worker_with_room_and_what_follows_goes_there_by_itself():
    async with placing() as scene:
        assert not scene.placer.is_placing
        await scene.start()
        placed = await scene.arrived()
        assert (placed.type, placed.message.headers[headers.PLACEMENT]) == ("call.started", f"{ME}/1")
        assert placed.message.headers[CALL_HEADER] == CALL
        assert scene.placer.is_placing
        assert scene.workers.asked == 1, "who has just become the placer wants to know who is there"
        await scene.event(CallKind.PROGRESS)
        bound = await scene.arrived()
        assert (bound.type, bound.exchange) == ("call.progress", scene.names.sessions), "it did not pass the placer"
        await scene.nothing_more()


@in_virtual_time
async def test_a_start_gets_the_room_that_appears_while_it_waits():
    async with placing() as scene:
        scene.workers.report(sessions=5)
        began = moment()
        await scene.start()
        await passes(WAIT / 2)
        assert scene.placer.waiting == 1
        scene.workers.report()
        scene.placer.look_for_room()
        placed = await scene.arrived()
        assert scene.placer.waiting == 0
        assert int(placed.message.headers[headers.ADMISSION]) / 1000 == pytest.approx(began + WAIT, abs=0.1)
        await scene.nothing_more()


@in_virtual_time
async def test_a_start_that_finds_no_room_is_rejected_when_its_wait_is_over():
    async with placing() as scene:
        scene.workers.report(sessions=5)
        began = moment()
        await scene.start()
        assert await scene.refused() == "SERVICE_SESSION_LIMIT"
        assert moment() - began == pytest.approx(WAIT, abs=0.1)
        await passes(LONG)
        assert scene.told() == [(CALL, "rejected")]
        assert scene.bound() == []
        await scene.nothing_more()


@in_virtual_time
async def test_a_command_for_no_service_is_rejected_with_an_event_if_its_sender_hears_no_reply():
    async with placing() as scene:
        body = {"session_id": CALL, "service_name": "nope"}
        await scene.send("session.create", body)
        assert await scene.refused() == "SERVICE_NOT_FOUND"
        assert scene.told() == []
        await scene.send("session.create", body, reply_to=None)
        await passes(1)
        assert scene.told() == [(CALL, "rejected")]


@in_virtual_time
async def test_a_use_that_names_no_service_of_anybody_is_told_so():
    async with placing() as scene:
        await scene.call_tool(fields={"service_name": "nope", "open": "never"})
        assert await scene.refused() == "SERVICE_NOT_FOUND"
        await scene.call_tool(fields={"service_name": "echo", "open": "never"})
        assert await scene.refused() == "SESSION_NOT_FOUND"


@in_virtual_time
async def test_who_has_not_been_heard_for_a_while_is_asked_before_it_is_given_a_call():
    async with placing() as scene:
        await scene.end(call=CallId("c-2"))
        await passes(2 * GRACE)
        scene.workers.report(OTHER, sessions=1)
        scene.workers.die(OWNER)
        asked = scene.workers.asked
        await scene.start()
        assert (await scene.arrived(OTHER)).type == "call.started"
        assert scene.workers.asked == asked + 1


@in_virtual_time
async def test_who_has_just_become_the_placer_hears_the_others_before_it_says_that_nobody_has_room():
    async with placing() as scene:
        scene.workers.presence.deafened()
        scene.workers.presence.bound()
        await passes(0.1)
        await scene.start(given={headers.ADMISSION: headers.milliseconds(moment() - 1)})
        assert (await scene.arrived()).type == "call.started"


@in_virtual_time
async def test_a_start_whose_wait_was_over_before_is_rejected_at_once_or_placed_at_once():
    async with placing() as scene:
        over = {headers.ADMISSION: headers.milliseconds(moment() - 1)}
        await scene.start(given=over)
        assert (await scene.arrived()).message.headers[headers.ADMISSION] == over[headers.ADMISSION]
        scene.workers.report(sessions=5)
        began = moment()
        await scene.start(given=over, call=CallId("c-2"))
        assert await scene.refused() == "SERVICE_SESSION_LIMIT"
        assert moment() - began < 0.1


@in_virtual_time
async def test_a_call_gets_those_of_its_services_that_there_is_room_for():
    async with placing() as scene:
        scene.configured.services = {name: MCPService(name=name, command=["echo"]) for name in (ECHO, TODO)}
        full, free = ServiceLoad(sessions=5, max_sessions=5), ServiceLoad(max_sessions=5)
        scene.workers.report(services={"echo": full, "todo": free})
        await scene.start()
        assert (await scene.arrived()).type == "call.started"
        await scene.nothing_more()


@in_virtual_time
async def test_calls_wait_for_room_beside_each_other():
    async with placing() as scene:
        scene.workers.report(sessions=5)
        await scene.start()
        await passes(0.1)
        await scene.end(call=CallId("c-2"))
        await passes(REORDER + 0.1)
        assert (await scene.reply()).unwrap() == {"closed": []}
        assert scene.placer.waiting == 1


@in_virtual_time
async def test_a_start_that_opens_nothing_is_placed_nowhere():
    async with placing() as scene:
        scene.configured.services = {}
        await scene.start()
        assert (await scene.reply()).unwrap() == {"sessions": []}
        assert scene.bound() == []
        await scene.nothing_more()


# Ends.


@in_virtual_time
async def test_an_end_that_nobody_owns_leaves_a_tombstone():
    async with placing() as scene:
        await ended(scene)
        assert CALL in scene.endings
        await scene.start()
        assert (await scene.reply()).unwrap() == {"sessions": []}
        await scene.nothing_more()


@pytest.mark.parametrize(("sent_after", "opens"), [(0.5, False), (1.5, True)])
@in_virtual_time
async def test_a_start_that_comes_late_opens_nothing_if_it_was_sent_within_the_tombstone(
    sent_after: float, opens: bool
):
    async with placing() as scene:
        await ended(scene)
        tombstone = scene.configured.timings.tombstone
        sent = now() + timedelta(seconds=tombstone * sent_after)
        await passes(tombstone * 2)
        await scene.start(timestamp=sent)
        if opens:
            assert (await scene.arrived()).type == "call.started"
        else:
            assert (await scene.reply()).unwrap() == {"sessions": []}
        await scene.nothing_more()


@in_virtual_time
async def test_an_end_waits_for_its_start_which_may_come_behind_it():
    async with placing() as scene:
        await scene.end()
        await passes(REORDER / 2)
        assert CALL not in scene.endings
        await scene.start()
        assert (await scene.arrived()).type == "call.started"
        last = await scene.arrived()
        assert (last.type, last.message.headers[headers.BELIEVED]) == ("call.ended", f"{ME}/1")
        assert CALL not in scene.endings, "its owner notes it"
        await scene.nothing_more()


@in_virtual_time
async def test_an_end_waits_for_nothing_when_it_was_sent_again_or_comes_again():
    async with placing() as scene:
        began = moment()
        await scene.end(given={headers.RESENT: True})
        await scene.reply()
        await scene.end()
        await scene.reply()
        assert moment() - began < REORDER / 2


@in_virtual_time
async def test_a_recipe_restores_no_session_that_a_start_opened_within_the_tombstone():
    async with placing() as scene:
        tombstone = scene.configured.timings.tombstone
        ended_at = now() - timedelta(seconds=tombstone + 20)
        told = EndedCalls(worker_id=OWNER, ended={CALL: ended_at.timestamp()})
        message = Message(told.model_dump_json().encode(), type=EndedCalls.type)
        scene.endings.hear(Delivery(message, "", "", "", False, 0.0, None))
        within = ended_at + timedelta(seconds=tombstone / 2)
        one = kept(created_at=within, metadata={"call": {}})  # a worker opened it that had not heard of the end
        await scene.recipe(sessions=[one])
        await scene.recipe(sessions=[kept(created_at=within, metadata={"who": "a command"})])
        delivery = await scene.arrived()
        assert json.loads(delivery.message.body)["sessions"][0]["metadata"] == {"who": "a command"}
        await scene.nothing_more()


# Requests and commands.


@in_virtual_time
async def test_a_use_of_a_session_is_sent_once_more_before_it_is_refused():
    async with placing() as scene:
        await scene.call_tool()
        assert await scene.refused() == "SESSION_NOT_FOUND"
        await scene.nothing_more()


@in_virtual_time
async def test_a_use_of_a_session_finds_the_owner_that_has_bound_its_queue_meanwhile():
    async with placing() as scene:
        await scene.unowned.bind(Binding(scene.names.sessions, scene.names.inbox(OWNER), routing_key(CALL)))
        await scene.call_tool(exchange=scene.names.unowned)  # it was routed before that
        again = await scene.arrived()
        assert (again.type, again.message.headers[headers.RESENT]) == ("tools.call", True)
        assert headers.LATE not in again.message.headers
        await scene.nothing_more()


@pytest.mark.parametrize(("kind", "first"), [("tools.call", "acked"), ("call.started", "requeued")])
@in_virtual_time
async def test_what_may_be_executed_once_is_nobody_elses_when_it_cannot_be_sent_on(kind: str, first: str):
    bodies: dict[str, Json] = {
        "tools.call": {"session_id": CALL, "name": "t"},
        "call.started": {"call_id": CALL, "kind": "started", "source": "test"},
    }
    async with placing() as scene:
        delivery, settled = delivered(
            kind, json.dumps(bodies[kind]).encode(), queue=scene.names.unowned, exchange=scene.names.sessions,
            key=routing_key(CALL),
        )  # fmt: skip
        scene.wire.publisher.detach()
        scene.placer.take(delivery)
        await passes(LONG)
        assert settled.how[0] == first


@in_virtual_time
async def test_a_request_that_opens_its_session_is_placed_and_its_caller_waits_no_longer_for_that():
    async with placing() as scene:
        began = moment()
        await scene.call_tool(fields={"service_name": ECHO, "timeout": 7})
        placed = await scene.arrived()
        given = placed.message.headers
        assert (given[CALL_HEADER], given[headers.PLACEMENT]) == (CALL, f"{ME}/1")
        assert int(given[headers.DEADLINE]) / 1000 == pytest.approx(began + 7, abs=0.1)
        await scene.send("session.create", {"session_id": "c-2", "service_name": ECHO}, call=CallId("c-2"))
        assert headers.DEADLINE not in (await scene.arrived()).message.headers, "the owner knows how long that may take"
        await scene.nothing_more()


@pytest.mark.parametrize(
    ("service", "offered", "code"),
    [
        (ECHO, None, None),
        ("nobody", None, "SERVICE_NOT_FOUND"),
        ("nobody", ServiceLoad(max_sessions=5, enabled=False), "SERVICE_NOT_FOUND"),
        ("elsewhere", ServiceLoad(max_sessions=5), None),
        (TODO, None, "SERVICE_DISABLED"),
        (TODO, ServiceLoad(max_sessions=5), None),
    ],
)
@in_virtual_time
async def test_a_command_names_a_service_that_some_worker_offers(
    service: str, offered: ServiceLoad | None, code: str | None
):
    async with placing() as scene:
        scene.configured.services = {
            ECHO: MCPService(name=ECHO, command=["echo"]), TODO: MCPService(name=TODO, command=["x"], enabled=False),
        }  # fmt: skip
        if offered is not None:
            scene.workers.report(services={service: offered})
        await scene.send("session.create", {"session_id": CALL, "service_name": service})
        if code is None:
            assert (await scene.arrived()).type == "session.create"
        else:
            assert await scene.refused() == code
        await scene.nothing_more()


@in_virtual_time
async def test_a_command_that_nobody_waits_for_opens_nothing():
    async with placing() as scene:
        await ended(scene)
        over = {headers.DEADLINE: headers.milliseconds(moment() - 1)}
        await scene.send("session.create", {"session_id": CALL, "service_name": ECHO}, given=over)
        assert await scene.refused() == "DEADLINE_EXCEEDED"
        assert CALL in scene.endings
        await scene.nothing_more()


@pytest.mark.parametrize(("sent", "code"), [(-10.0, "SESSION_NOT_FOUND"), (10.0, None)])
@in_virtual_time
async def test_a_command_that_is_sent_again_opens_what_has_ended_only_from_behind_the_end(
    sent: float, code: str | None
):
    async with placing() as scene:
        await ended(scene)
        when = datetime.fromtimestamp(moment() + sent, UTC)
        body = {"session_id": CALL, "service_name": ECHO}
        await scene.send("session.create", body, given={headers.RESENT: True}, timestamp=when)
        if code is None:
            assert (await scene.arrived()).type == "session.create"
        else:
            assert await scene.refused() == code
        assert (CALL in scene.endings) == (code is not None)
        await scene.nothing_more()


@in_virtual_time
async def test_a_command_opens_a_call_that_has_ended_again():
    async with placing() as scene:
        await ended(scene)
        await scene.send("session.create", {"session_id": CALL, "service_name": ECHO})
        assert (await scene.arrived()).type == "session.create"
        assert CALL not in scene.endings
        await scene.nothing_more()


@in_virtual_time
async def test_who_asks_for_the_owner_of_a_call_is_its_owner_if_it_lives():
    async with placing() as scene:

        async def ask(worker: WorkerId) -> None:
            question = OwnerCheck(call_id=CALL, worker_id=worker, revision=0)
            await scene.send(OwnerCheck.type, question.model_dump_json().encode())

        await ask(OTHER)
        await passes(LONG)
        assert scene.bound() == [], "it has left, and its inbox with it"
        await ask(OWNER)
        confirmed = await scene.arrived()
        assert (confirmed.type, confirmed.message.headers[headers.PLACEMENT]) == (OwnerCheck.type, f"{ME}/1")
        assert scene.bound() == [scene.names.inbox(OWNER)]
        await scene.nothing_more()


# Messages that come while a call is being placed, and others.


@in_virtual_time
async def test_what_was_routed_before_the_binding_goes_where_its_call_was_placed():
    async with placing() as scene:
        await scene.start()
        await scene.arrived()
        for _ in range(2):
            await scene.end(exchange=scene.names.unowned)
            late = await scene.arrived()
            assert (late.type, late.exchange, late.routing_key) == ("call.ended", "", scene.names.inbox(OWNER))
            assert late.message.headers[headers.BELIEVED] == f"{ME}/1"
            assert late.message.headers[CALL_HEADER] == CALL
            await passes(REORDER)
        await scene.nothing_more()


@in_virtual_time
async def test_a_placement_is_forgotten_when_its_worker_has_left():
    async with placing() as scene:
        await scene.start()
        await scene.arrived()
        scene.workers.report(state="stopped")
        scene.workers.report(OTHER)
        await scene.start(exchange=scene.names.unowned)
        assert (await scene.arrived(OTHER)).message.headers[headers.PLACEMENT] == f"{ME}/2"


@in_virtual_time
async def test_a_message_that_cannot_be_read_is_a_dead_letter_and_a_probe_is_none():
    async with placing() as scene:
        await scene.send("call.started", {"call_id": CALL, "kind": "no such kind", "source": "test"})
        assert await scene.refused() == "INVALID_MESSAGE"
        parked = await scene.heard["dead"].next()
        assert parked.type == "call.started"
        await scene.send(PROBE, {})
        await scene.nothing_more()


# The term of a placer.


@in_virtual_time
async def test_without_its_link_a_placer_has_no_term_and_takes_nothing():
    async with placing() as scene:
        await scene.start()
        await scene.arrived()
        await scene.placer.detach()
        assert not scene.placer.is_placing
        await scene.start(call=CallId("c-2"))
        await passes(LONG)
        assert scene.inboxes[OWNER].deliveries.empty()
        assert not scene.placer.is_placing, "what comes is RabbitMQ's again with its channel"


@in_virtual_time
async def test_on_another_link_a_placer_remembers_no_placement():
    async with placing() as scene:
        await scene.start()
        await scene.arrived()
        fresh = await scene.wire.link.channel()
        scene.placer.attach(fresh)
        await scene.unowned.close()
        await fresh.consume(scene.names.unowned, scene.placer.take)
        await scene.start(exchange=scene.names.unowned)
        again = await scene.arrived()
        assert again.message.headers[headers.PLACEMENT] == f"{ME}/2"
        assert headers.BELIEVED not in again.message.headers
        assert scene.workers.asked == 2, "it is elected anew"


@in_virtual_time
async def test_a_placer_whose_term_ends_while_it_binds_sends_nothing_on():
    async with placing() as scene:
        scene.workers.report(sessions=5)
        await scene.start()
        await passes(WAIT / 2)
        await scene.unowned.cancel(scene.consumer)
        scene.placer.attach(await scene.wire.link.channel())  # the old channel is still there for a moment
        scene.workers.report()
        scene.placer.look_for_room()
        await passes(LONG)
        assert scene.inboxes[OWNER].deliveries.empty()
        assert scene.wire.node.queues[scene.names.unowned].message_count == 1, "it is the next placer's"


@in_virtual_time
async def test_a_placer_that_resigns_takes_nothing_more_and_sends_on_what_it_has():
    async with placing() as scene:
        await scene.end()
        await passes(REORDER / 2)
        resigning = asyncio.create_task(scene.placer.resign(REORDER))
        await passes(0.1)
        await scene.start(call=CallId("c-2"))
        await resigning
        assert (await scene.reply()).unwrap() == {"closed": []}
        assert not scene.placer.is_placing
        await scene.start(call=CallId("c-3"))
        await passes(LONG)
        assert scene.inboxes[OWNER].deliveries.empty()
