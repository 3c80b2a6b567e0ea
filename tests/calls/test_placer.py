"""The placer on a real RabbitMQ, with workers that only report: what it binds, sends on and answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from consumer.broker.channel import Channel
from consumer.broker.declare import apply
from consumer.broker.link import Link
from consumer.broker.message import CALL_HEADER, Delivery, Message
from consumer.broker.outbox import Outbox
from consumer.broker.publisher import Publisher
from consumer.broker.settling import Settler
from consumer.broker.topology import Names, Queue, cluster_topology, inbox
from consumer.calls.cluster.ended_calls import Endings
from consumer.calls.cluster.membership import Presence
from consumer.calls.cluster.presence_requests import PresenceRequests
from consumer.calls.context import Configured
from consumer.calls.events import Reporter
from consumer.calls.placement.orphans import Orphans
from consumer.calls.placement.placements import Placements
from consumer.calls.placement.placer import Placer
from consumer.concurrency.task_set import Tasks
from consumer.processes.service import MCPService
from schemas import headers
from schemas.base import Json
from schemas.calls import CallEvent, CallKind
from schemas.ids import CallId, ServiceName, SessionId, WorkerId, routing_key
from schemas.internal import EndedCalls, PresenceReport, Recipe, SessionRecipe
from schemas.replies import Reply, parse_reply
from schemas.requests import ToolsCall
from schemas.sessions import ServiceLoad, WorkerInfo
from tests.calls.owner_parts import Times
from tests.calls.presences import presence_of
from tests.harness import remove_everything

ME, OWNER = WorkerId("placer"), WorkerId("owner")
CALL = CallId("c-1")
ECHO = ServiceName("echo")


@dataclass(frozen=True)
class Hurried(Times):
    """Nobody waits for room for long."""

    admission_wait: float = 0.1


@dataclass
class Scene:
    """A placer that consumes, a worker's inbox, and who hears replies."""

    placer: Placer
    presence: Presence
    publisher: Publisher
    names: Names
    inbox: asyncio.Queue[Delivery]
    replies: asyncio.Queue[Delivery]
    reply_to: str
    endings: Endings

    def report(self, *, sessions: int = 0, most: int = 5) -> None:
        """The worker that owns calls says how it is there."""
        load = ServiceLoad(sessions=sessions, max_sessions=most)
        info = WorkerInfo(
            worker_id=OWNER, host="h", pid=1, version="1", state="ready", started_at=datetime.now(UTC),
            sessions=sessions, capacity=10, services={"echo": load},
        )  # fmt: skip
        self.presence.heard(PresenceReport(worker=info), ME)
        self.placer.look_for_room()

    async def send(self, kind: str, body: bytes) -> None:
        """Publish to the sessions exchange; nobody owns the call, so it is the placer's."""
        message = Message(body, type=kind, reply_to=self.reply_to, correlation_id=kind)
        await self.publisher.publish(message, self.names.sessions, routing_key(CALL))

    async def event(self, kind: CallKind) -> None:
        event = CallEvent(call_id=CALL, kind=kind, source="test")
        await self.send(event.message_type, event.model_dump_json().encode())

    async def arrived(self) -> Delivery:
        async with asyncio.timeout(20):
            return await self.inbox.get()

    async def reply(self) -> Reply:
        async with asyncio.timeout(20):
            return parse_reply((await self.replies.get()).message.body)


async def _nothing() -> None:
    """Nothing takes dead letters here."""


async def _consume(channel: Channel, queue: Queue) -> asyncio.Queue[Delivery]:
    heard: asyncio.Queue[Delivery] = asyncio.Queue()
    await channel.declare_queue(queue)
    await channel.consume(queue.name, heard.put_nowait, no_ack=True)
    return heard


@pytest.fixture
async def scene(amqp_url: str, prefix: str) -> AsyncIterator[Scene]:
    names, tasks, publisher = Names(prefix), Tasks(), Publisher(signs=True)
    link = Link(amqp_url, "test")
    await link.open()
    channel = await link.channel()
    await apply(channel, cluster_topology(names), link=link)
    publisher.attach(await link.publishing(signed=True))
    outbox = Outbox(publisher)
    tasks.start(outbox.run(), "outbox")
    reporter, presence = Reporter(ME, names, outbox), presence_of(ME)
    placements = Placements(ME, names)
    configured = Configured({ECHO: MCPService(name=ECHO, command=["echo"])}, (), Hurried())
    endings = Endings(ME, names, publisher, configured.timings.tombstone)
    placer = Placer(
        names, Settler(publisher, names.dead_letters, dead_lettered=lambda _reason: None, restore=_nothing),
        placements, Orphans(names, placements, presence, reporter), presence=presence,
        presence_requests=PresenceRequests(publisher, names.workers, ME, tasks), endings=endings, reporter=reporter,
        configured=configured,
    )  # fmt: skip
    inbox_of_owner = await _consume(channel, inbox(names, OWNER))
    reply_to = f"{prefix}.replies"
    replies = await _consume(channel, Queue(reply_to, "replies of this test", exclusive=True))
    unowned = await link.channel()
    placer.attach(unowned)
    await unowned.consume(names.unowned, placer.take)
    presence.asked()  # who lives has been asked, and has had the time to answer
    yield Scene(placer, presence, publisher, names, inbox_of_owner, replies, reply_to, endings)
    await placer.detach()
    await endings.stop()
    await tasks.cancel()
    await link.close()
    await remove_everything(amqp_url, prefix, [])


async def test_a_start_is_bound_to_a_worker_with_room_and_what_follows_goes_there_by_itself(scene: Scene):
    scene.report()
    await scene.event(CallKind.STARTED)
    placed = await scene.arrived()
    assert (placed.type, placed.message.headers[headers.PLACEMENT]) == ("call.started", f"{ME}/1")
    assert placed.message.headers[CALL_HEADER] == CALL
    assert scene.placer.is_placing
    await scene.event(CallKind.PROGRESS)
    bound = await scene.arrived()
    assert (bound.type, bound.exchange) == ("call.progress", scene.names.sessions), "it did not pass the placer"


async def test_a_start_waits_for_room_and_is_rejected_when_none_appears(scene: Scene):
    scene.report(sessions=5)
    await scene.event(CallKind.STARTED)
    refused = await scene.reply()
    assert refused.error is not None
    assert refused.error.code == "SERVICE_SESSION_LIMIT"
    scene.report()
    await scene.event(CallKind.STARTED)
    assert (await scene.arrived()).type == "call.started"


async def test_an_end_that_nobody_owns_leaves_a_tombstone(scene: Scene):
    scene.report()
    await scene.event(CallKind.ENDED)
    assert (await scene.reply()).unwrap() == {"closed": []}
    await scene.event(CallKind.STARTED)
    assert (await scene.reply()).unwrap() == {"sessions": []}
    assert scene.inbox.empty()


async def test_a_recipe_restores_no_session_that_a_start_opened_within_the_tombstone(scene: Scene):
    scene.report()
    now, tombstone = datetime.now(UTC), Times().tombstone
    ended_at = now - timedelta(seconds=tombstone + 20)
    told = EndedCalls(worker_id=OWNER, ended={CALL: ended_at.timestamp()})
    message = Message(told.model_dump_json().encode(), type=EndedCalls.type)
    scene.endings.hear(cast("Delivery", SimpleNamespace(message=message)))

    async def recipe(metadata: Json) -> None:
        within = ended_at + timedelta(seconds=tombstone / 2)
        session = SessionRecipe(
            session_id=SessionId(CALL), service_name=ECHO, created_at=within, last_accessed=now, timeout=60,
            metadata=metadata, life="a",
        )  # fmt: skip
        made = Recipe(call_id=CALL, worker_id=WorkerId("gone"), revision=1, sessions=[session])
        await scene.send(Recipe.type, made.model_dump_json().encode())

    await recipe({"call": {}})  # a worker opened it that had not heard of the end
    await recipe({"who": "a command"})
    delivery = await scene.arrived()
    assert json.loads(delivery.message.body)["sessions"][0]["metadata"] == {"who": "a command"}


async def test_a_use_of_a_session_is_sent_once_more_before_it_is_refused(scene: Scene):
    scene.report()
    await scene.send(ToolsCall.type, json.dumps({"session_id": CALL, "name": "t", "arguments": {}}).encode())
    refused = await scene.reply()
    assert refused.error is not None
    assert refused.error.code == "SESSION_NOT_FOUND"


async def test_without_its_link_a_placer_has_no_term(scene: Scene):
    scene.report()
    await scene.event(CallKind.STARTED)
    await scene.arrived()
    assert scene.placer.is_placing
    await scene.placer.detach()
    assert not scene.placer.is_placing
