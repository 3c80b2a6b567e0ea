"""What a worker declares, binds and consumes on a link, and who takes what comes."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.broker.errors import BrokerUnavailable, NameTaken
from consumer.broker.link import Link
from consumer.broker.message import Delivery, Message
from consumer.broker.topology import Binding, Queue, inbox
from consumer.calls.cluster.inbox_probe import PROBE
from consumer.worker.consumers import RIVAL_TIMEOUT
from consumer.worker.shared_consumers import PLACED_AT_ONCE
from schemas.events import EndReason
from schemas.ids import CallId
from schemas.internal import PresenceReport, PresenceRequest
from tests.calls.presences import report_of
from tests.calls.simulated_link import SimulatedLink
from tests.virtual_time import in_virtual_time, moment, now, passes
from tests.worker.attached import CALL, ME, Attached, attached


def own_queues(scene: Attached) -> list[str]:
    """The queues of this worker alone, whose names end with the link's token."""
    names = scene.wire.names
    token = scene.wire.link.token
    return [names.inbox(ME), names.requests_of(ME, token), names.worker(ME, token)]


@in_virtual_time
async def test_a_worker_consumes_its_own_queues_and_those_that_all_share():
    began = moment()
    async with attached() as scene:
        assert moment() - began < RIVAL_TIMEOUT + 0.5, "it waits for no rival where nobody consumes its inbox"
        assert scene.consumed() == {"unowned", "calls", "queries"}
        for name in own_queues(scene):
            assert len(scene.queue(name).consumers) == 1, name
        limits = {
            one.queue.name: one.prefetch for name in scene.wire.node.queues for one in scene.queue(name).consumers
        }
        names = scene.wire.names
        assert (limits[names.unowned], limits[names.calls], limits[names.queries]) == (PLACED_AT_ONCE, 10, 10)
        workers = scene.wire.node.exchanges[names.workers].route("", {})
        assert own_queues(scene)[2] in workers


@in_virtual_time
async def test_who_comes_back_while_it_leaves_takes_what_it_has_not_stopped_to_take():
    async with attached() as scene:

        async def comes_back(link: Link) -> None:
            await scene.consumers.detached()
            await link.close()
            await passes(0.1)
            another = await scene.another_link()
            scene.parts.publisher.attach(await another.publishing(signed=True))
            await scene.consumers.attach(another)

        await scene.consumers.shared.stop_placing()
        await comes_back(scene.wire.link)
        assert scene.consumed() == {"calls", "queries"}, "only it may be there to take the ends of its calls"
        await scene.consumers.shared.stop_taking(1.0)
        await comes_back(scene.links[-1])
        assert scene.consumed() == set()


@in_virtual_time
async def test_a_new_link_asks_everybody_to_report_and_for_the_calls_that_have_ended():
    async with attached() as scene:
        await scene.wire.declare(Queue("theirs", "of this test"))
        control = await scene.wire.link.channel()
        await control.bind(Binding(scene.wire.names.workers, "theirs"))
        heard = await scene.wire.consume("theirs")
        await scene.consumers.detached()
        link = await scene.another_link()
        await scene.consumers.attach(link)
        told = [heard.deliveries.get_nowait() for _ in range(heard.deliveries.qsize())]
        asked = [one.message.reply_to for one in told if one.type == PresenceRequest.type]
        mine = scene.wire.names.worker(ME, link.token)
        assert asked == [None, mine], "the first asks who else has our id: RabbitMQ believes in the link before"


@in_virtual_time
async def test_a_platforms_exchange_leads_to_the_call_events():
    exchange = {"exchange": "TAP.Events", "routing_key": "#.CHANNEL_CREATE", "platform": "freeswitch"}
    async with attached({"call_exchanges": [exchange]}) as scene:
        leads_to = scene.wire.node.exchanges["TAP.Events"].route("a.b.CHANNEL_CREATE", {})
        assert leads_to == [scene.wire.names.calls]


@in_virtual_time
async def test_a_probe_in_the_inbox_is_the_workers_and_nobody_elses():
    async with attached() as scene:
        heard: list[Delivery] = []
        scene.liveness.heard = heard.append  # type: ignore[assignment, method-assign]
        await scene.send(PROBE, {}, exchange="", call=CallId(scene.wire.names.inbox(ME)))
        await passes(0.1)
        assert [one.type for one in heard] == [PROBE]
        assert not scene.queue(scene.wire.names.inbox(ME)).held, "it is acknowledged"
        await scene.open()
        assert len(heard) == 1


@in_virtual_time
async def test_a_lost_link_leaves_nothing_that_it_brought():
    async with attached() as scene:
        await scene.open()
        await scene.consumers.detached()
        assert not scene.parts.placer.is_placing
        assert not scene.parts.ownership.owned_calls.attached
        assert scene.parts.ownership.owned_calls.calls[CALL].check.in_doubt
        with pytest.raises(BrokerUnavailable):
            await scene.parts.link.consumed(ME)
        del scene.parts.ownership.owned_calls.calls[CALL]
        with capture_logs() as logs:
            await scene.consumers.delete_inbox()
        assert why_left(logs) == ["no_link"]
        assert scene.wire.names.inbox(ME) in scene.wire.node.queues, "there is no channel to delete it on"


@in_virtual_time
async def test_an_inbox_whose_recipes_are_needed_is_not_deleted():
    async with attached() as scene:
        await scene.open()
        owned_calls = scene.parts.ownership.owned_calls
        with capture_logs() as logs:
            await scene.consumers.delete_inbox()
            assert scene.wire.names.inbox(ME) in scene.wire.node.queues
            await owned_calls.release(owned_calls.calls[CALL])
            await passes(0.5)
            await scene.consumers.delete_inbox(untold=1)
            assert scene.wire.names.inbox(ME) in scene.wire.node.queues
            await scene.consumers.delete_inbox()
        assert scene.wire.names.inbox(ME) not in scene.wire.node.queues
        assert why_left(logs) == ["calls", "events"]


@in_virtual_time
async def test_an_inbox_stays_for_a_recipe_that_has_not_come_back():
    async with attached() as scene:
        await scene.open()
        owned_calls = scene.parts.ownership.owned_calls
        call = owned_calls.calls.pop(CALL)
        (session,) = call.sessions.values()
        call.link_lost()
        call.events.postpone(session.life, scene.parts.reporter.lost_life(session))
        owned_calls.leave_to_placer(call)
        with capture_logs() as logs:
            await scene.consumers.delete_inbox()
        assert scene.wire.names.inbox(ME) in scene.wire.node.queues
        assert why_left(logs) == ["recipes"]


@in_virtual_time
async def test_a_closed_inbox_gives_back_what_comes_and_stays_for_it():
    async with attached() as scene:
        inbox = scene.wire.names.inbox(ME)
        scene.consumers.close_inbox()
        await scene.send("session.create", {"session_id": CALL, "service_name": "echo"})
        await passes(0.5)
        assert CALL not in scene.parts.ownership.owned_calls.calls
        assert len(scene.queue(inbox).held) == 1, "RabbitMQ takes it back with the channel"
        with capture_logs() as logs:
            await scene.consumers.delete_inbox()
        assert inbox in scene.wire.node.queues
        assert why_left(logs) == ["messages"]


@in_virtual_time
async def test_the_owner_stops_when_the_last_end_is_told_and_its_recipe_acknowledged():
    async with attached() as scene:
        await scene.open()
        owned_calls = scene.parts.ownership.owned_calls
        owned_calls.leaving = True
        node = scene.wire.node
        node.set_alarm(on=True)  # it confirms the end when the alarm is over
        asyncio.get_running_loop().call_later(0.5, partial(node.set_alarm, on=False))
        for session in list(owned_calls.calls[CALL].sessions):
            await scene.parts.sessions.close_session(session, EndReason.WORKER_SHUTDOWN)
        await scene.parts.owner.stop(1.0)
        assert not owned_calls.needs_recipes
        assert not scene.queue(scene.wire.names.inbox(ME)).held


def why_left(logs: list[Any]) -> list[str]:
    return [one["reason"] for one in logs if one["event"] == "worker.inbox_left"]


# Another process under our id.


async def somebody_consumes(wire: SimulatedLink) -> None:
    await wire.declare(inbox(wire.names, ME))
    await wire.consume(wire.names.inbox(ME))


@in_virtual_time
async def test_a_former_life_that_the_broker_still_believes_in_is_waited_for_and_not_more():
    began = 0.0

    async def before(wire: SimulatedLink) -> None:
        nonlocal began
        await somebody_consumes(wire)
        began = moment()

    async with attached(before=before) as scene:
        assert scene.consumed() == {"unowned", "calls", "queries"}
        assert moment() - began == pytest.approx(RIVAL_TIMEOUT + 1.0, abs=0.2), "and a second of the scene's"
        assert not scene.parts.claim.rival.done()


@in_virtual_time
async def test_another_process_under_our_id_that_answers_has_it():
    async def before(wire: SimulatedLink) -> None:
        await somebody_consumes(wire)
        await wire.declare(Queue("rival", "of this test"))
        channel = await wire.link.channel()
        await channel.bind(Binding(wire.names.workers, "rival"))
        answered: set[asyncio.Task[Any]] = set()

        def take(delivery: Delivery) -> None:
            if delivery.type == PresenceRequest.type:
                info = report_of(ME).worker.model_copy(update={"started_at": now() - timedelta(seconds=60)})
                report = PresenceReport(worker=info)
                message = Message(report.model_dump_json().encode(), type=PresenceReport.type, persistent=False)
                publishing = wire.publisher.publish(message, wire.names.workers, "", confirm=False)
                answered.add(asyncio.ensure_future(publishing))

        await channel.consume("rival", take, no_ack=True)

    with pytest.raises(NameTaken, match="another process is worker 'w-1'"):
        async with attached(before=before):
            raise AssertionError("it is taken")
