"""What a worker makes of each message of its peers, to whom it reports, and when it asks for all of them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from consumer.broker.message import Delivery, Message
from consumer.broker.topology import Binding, Queue, inbox
from consumer.concurrency.task_set import cancel_and_wait
from consumer.settings import Settings
from consumer.worker.wiring import Parts
from schemas.base import Json
from schemas.ids import CallId, WorkerId
from schemas.internal import ClosedSessions, EndedCalls, FiguresScatter, PresenceReport, PresenceRequest
from schemas.replies import parse_reply, succeeded
from tests.calls.simulated_link import BOUND, Heard, SimulatedLink, delivered, simulated_link

ME, OTHER = WorkerId("w-1"), WorkerId("w-2")
CALL = CallId("c-1")


@dataclass
class Scene:
    """The parts of a worker on a link, with its own queue consumed, and another worker's queue."""

    wire: SimulatedLink
    parts: Parts
    other: Heard

    def hear(self, kind: str, body: Json | bytes, *, exchange: str | None = None, **more: Any) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        exchange = self.parts.names.workers if exchange is None else exchange
        delivery, _ = delivered(kind, raw, queue="mine", exchange=exchange, **{"user": "guest", **more})
        self.parts.peers.hear(delivery)

    def report(self, worker: WorkerId = OTHER, *, older_by: float = 0, **more: Any) -> None:
        """A worker reports."""
        mine = self.parts.own_report.info()
        started_at = mine.started_at - timedelta(seconds=older_by)
        info = mine.model_copy(update={"worker_id": worker, "started_at": started_at, "state": "ready"})
        self.hear(PresenceReport.type, PresenceReport(worker=info).model_dump(mode="json"), **more)

    async def told(self, kind: str) -> Delivery:
        """The next message of a type that another worker hears."""
        while (heard := await self.other.next()).type != kind:
            pass
        return heard

    @property
    def known(self) -> list[WorkerId]:
        return [one.worker_id for one in self.parts.presence.workers()]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    settings = Settings.model_validate({"services": {}, "worker": {"worker_id": ME, "grace": 1.0}})
    async with simulated_link() as wire:
        parts = Parts(settings)
        parts.publisher.attach(await wire.link.publishing(signed=True))
        channel = await wire.link.channel()
        for name, handler in (("mine", parts.peers.hear), ("theirs", None)):
            await channel.declare_queue(Queue(name, "", exclusive=True))
            await channel.bind(Binding(parts.names.workers, name))
            if handler is not None:
                await channel.consume(name, handler, no_ack=True)
        parts.presence.bound()
        parts.rpc_client.attach("mine")
        yield Scene(wire, parts, await wire.consume("theirs"))
        await parts.owner.stop(0)
        await parts.endings.stop()
        await parts.queries.detach()
        await parts.tasks.cancel()
        await parts.mcp.shutdown()


async def test_another_worker_is_known_by_its_report_and_gone_with_its_last(scene: Scene):
    scene.report()
    assert scene.known == [OTHER]
    mine = scene.parts.own_report.info()
    stopped = PresenceReport(worker=mine.model_copy(update={"worker_id": OTHER, "state": "stopped"}))
    scene.hear(PresenceReport.type, stopped.model_dump(mode="json"))
    assert scene.known == []


async def test_who_is_no_worker_is_not_heard(scene: Scene):
    scene.report(exchange="", user="mallory")
    assert scene.known == []
    scene.report(user="another-worker")  # through their exchange, which only workers may write to
    scene.report(WorkerId("w-3"), exchange="", user="another-worker")
    assert scene.known == [OTHER, "w-3"]


async def test_a_report_that_cannot_be_read_is_none(scene: Scene):
    scene.hear(PresenceReport.type, {"newer": True})
    assert scene.known == []


@pytest.mark.parametrize(("older_by", "goes"), [(0, False), (5, True), (-5, False)])
async def test_a_report_under_our_id_is_our_own_or_a_rivals(scene: Scene, older_by: float, goes: bool):
    scene.report(ME, older_by=older_by)
    assert scene.parts.claim.rival.done() is goes
    assert scene.known == [], "what we are ourselves we know"


@pytest.mark.parametrize("placer", [None, OTHER, ME])
@pytest.mark.parametrize("to_placer", [True, False])
async def test_reports_go_to_the_placer_alone_if_that_is_wanted_and_another(
    scene: Scene, placer: WorkerId | None, to_placer: bool
):
    await scene.wire.declare(Queue("placers", ""))
    placers = await scene.wire.consume("placers")
    if placer is not None:
        scene.parts.presence.placer = placer, "placers"
    await scene.parts.reports.announce(to_placer=to_placer)
    straight = to_placer and placer == OTHER
    heard = await (placers if straight else scene.other).next()
    assert json.loads(heard.message.body)["worker"]["worker_id"] == ME
    assert heard.message.reply_to is None, "only who places says where it wants to hear of loads"
    assert (placers if not straight else scene.other).deliveries.empty()
    assert scene.known == [ME]


async def test_whoever_asks_for_reports_gets_one_and_a_newcomer_every_end(scene: Scene):
    announcing = asyncio.create_task(scene.parts.reports.keep_announcing(set_event()))
    try:
        scene.parts.endings.note(CALL)
        await scene.told(EndedCalls.type)
        await scene.wire.declare(Queue("newcomers", ""))
        newcomer = await scene.wire.consume("newcomers")
        scene.hear(PresenceRequest.type, {"worker_id": OTHER}, reply_to="newcomers")
        await scene.told(PresenceReport.type)
        told = await newcomer.next()
        assert (told.type, list(json.loads(told.message.body)["ended"])) == (EndedCalls.type, [CALL])
        scene.hear(PresenceRequest.type, {"worker_id": ME}, reply_to="mine")  # our own, on a new link
        assert list(json.loads((await scene.told(EndedCalls.type)).message.body)["ended"]) == [CALL]
        scene.hear(ClosedSessions.type, {"worker_id": OTHER, "closed": {CALL: time.time()}})
        scene.hear(PresenceRequest.type, {"worker_id": OTHER}, reply_to="newcomers")
        assert (await newcomer.next()).type == EndedCalls.type
        assert list(json.loads((await newcomer.next()).message.body)["closed"]) == [CALL]
        await scene.told(PresenceReport.type)
        scene.hear(PresenceRequest.type, {"worker_id": OTHER})  # a new placer, whose link is an old one
        await scene.told(PresenceReport.type)
        assert scene.other.deliveries.empty()
        assert newcomer.deliveries.empty()
    finally:
        await cancel_and_wait(announcing)


async def test_all_that_others_have_reported_is_heard_when_our_own_report_is_back(scene: Scene):
    announcing = asyncio.create_task(scene.parts.reports.keep_announcing(set_event()))
    try:
        for other in (OTHER, WorkerId("w-3")):
            report = PresenceReport(worker=scene.parts.own_report.info().model_copy(update={"worker_id": other}))
            message = Message(report.model_dump_json().encode(), type=PresenceReport.type, persistent=False)
            await scene.parts.publisher.publish(message, scene.parts.names.workers, "", confirm=False)
            async with asyncio.timeout(BOUND):
                await scene.parts.presence.heard_out()
            assert other in scene.known
    finally:
        await cancel_and_wait(announcing)


async def test_another_workers_question_is_answered_and_our_own_is_not(scene: Scene):
    await scene.wire.declare(Queue("askers", ""))
    asker = await scene.wire.consume("askers")
    scene.hear(FiguresScatter.type, {}, reply_to="mine", correlation_id="ours")
    assert len(scene.parts.queries._tasks) == 0, "nothing was begun"
    scene.hear(FiguresScatter.type, {}, reply_to="askers", correlation_id="theirs")
    answer = await asker.next()
    assert (answer.message.correlation_id, parse_reply(answer.message.body).ok) == ("theirs", True)
    assert await scene.parts.queries.drain(BOUND)
    assert asker.deliveries.empty()


@pytest.mark.parametrize(
    ("answer", "keeps"),
    [
        ({"call_id": CALL, "owner": ME}, True),
        ({"call_id": CALL}, True),
        ({"call_id": "c-2", "ended": True}, True),
        ({"call_id": CALL, "owner": OTHER}, False),
        ({"call_id": CALL, "ended": True}, False),
        (None, True),
    ],
)
async def test_a_call_is_given_up_that_another_worker_owns_or_that_has_ended(
    scene: Scene, answer: Json | None, keeps: bool
):
    owned_calls = scene.parts.ownership.owned_calls
    await scene.wire.declare(inbox(scene.parts.names, ME))
    await scene.wire.declare(Queue("fast", ""))
    owned_calls.attach(await scene.wire.link.channel(), "fast")
    owned_calls.own(CALL)
    body = b"no reply" if answer is None else succeeded(answer).dump()
    scene.hear("owner.check.reply", body, exchange="")
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2 if keeps else BOUND):
            while CALL in owned_calls.calls:
                await asyncio.sleep(0.005)
    assert (CALL in owned_calls.calls) is keeps


@pytest.mark.parametrize("consumed", [True, False])
async def test_a_neighbour_whose_inbox_nobody_consumes_makes_us_ask_everybody(scene: Scene, consumed: bool):
    looked: asyncio.Queue[WorkerId] = asyncio.Queue()

    async def is_consumed(worker: WorkerId) -> bool:
        looked.put_nowait(worker)
        return consumed

    scene.report()
    watching = asyncio.create_task(scene.parts.peers.keep_watching(set_event(), is_consumed))
    try:
        async with asyncio.timeout(BOUND):
            assert [await looked.get() for _ in range(2)] == [OTHER, OTHER]
        if consumed:
            assert scene.other.deliveries.empty()
        else:
            assert (await scene.told(PresenceRequest.type)).message.reply_to is None
    finally:
        await cancel_and_wait(watching)


def set_event() -> asyncio.Event:
    """A link that is up."""
    up = asyncio.Event()
    up.set()
    return up
