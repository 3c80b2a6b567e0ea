"""A placer on the simulated broker, and workers that only report: what it binds, sends on and answers can be seen."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from consumer.broker.channel import Channel
from consumer.broker.message import CALL_HEADER, Delivery, Message
from consumer.broker.outbox import Outbox
from consumer.broker.publisher import Publisher
from consumer.broker.settling import Settler
from consumer.broker.topology import Binding, Names, Queue, inbox
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
from schemas.base import Json
from schemas.calls import CallEvent, CallKind
from schemas.ids import CallId, ServiceName, SessionId, WorkerId, routing_key
from schemas.internal import PresenceReport, PresenceRequest, Recipe, SessionRecipe
from schemas.replies import Reply, parse_reply
from tests.calls.owner_parts import GRACE, Times
from tests.calls.presences import report_of
from tests.calls.simulated_link import Heard, SimulatedLink, simulated_link
from tests.virtual_time import now, passes

ME, OWNER, OTHER = WorkerId("placer"), WorkerId("owner"), WorkerId("other")
CALL = CallId("c-1")
ECHO, TODO = ServiceName("echo"), ServiceName("todo")

LONG = 60.0
"""Seconds in which everything has come that comes at all."""


class Workers:
    """The other workers: each that lives reports when everybody is asked."""

    def __init__(self, publisher: Publisher, names: Names, tasks: Tasks) -> None:
        self.requests = PresenceRequests(publisher, names.workers, ME, tasks)
        self.presence = Presence(
            GRACE,
            ME,
            report_soon=self._report_ours,
            request_presence=self.requests.send_soon,
            restart=lambda _: None,
        )
        self.presence.bound()
        self._living: dict[WorkerId, PresenceReport] = {}
        self.asked = 0
        """How often everybody was."""
        self.echo_after = 0.0
        """How long (s) our own report takes to come back."""

    def report(self, worker: WorkerId = OWNER, **more: Any) -> None:
        """A worker says how it is there, as ``report_of`` has it: now, and whenever it is asked."""
        self._living[worker] = report = report_of(worker, **more)
        self.presence.heard(report, ME)

    def die(self, worker: WorkerId = OWNER) -> None:
        """A worker answers no more."""
        del self._living[worker]

    def _report_ours(self) -> None:
        self.presence.reported()
        asyncio.get_running_loop().call_later(self.echo_after, self.presence.echoed)

    def hear(self, delivery: Delivery) -> None:
        """Take what is sent to all workers."""
        if delivery.type == PresenceRequest.type:
            self.asked += 1
            self.presence.asked()
            for report in self._living.values():
                self.presence.heard(report, ME)


@dataclass
class PlacerScene:
    """A placer that consumes, the inboxes of two workers, and who hears replies, events and dead letters."""

    wire: SimulatedLink
    placer: Placer
    workers: Workers
    endings: Endings
    configured: Configured
    unowned: Channel
    consumer: str = ""
    """The tag of the placer's."""
    inboxes: dict[WorkerId, Heard] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)

    @property
    def names(self) -> Names:
        return self.wire.names

    async def send(
        self, kind: str, body: Json | bytes, *, call: CallId = CALL, exchange: str | None = None,
        key: str | None = None, given: Json | None = None, **more: Any,
    ) -> None:  # fmt: skip
        """Publish a message of a call; nobody owns it unless the test has it bound."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        more = {"reply_to": "replies", "correlation_id": kind} | more
        message = Message(raw, type=kind, headers={CALL_HEADER: call} | (given or {}), **more)
        await self.wire.publisher.publish(
            message, self.names.sessions if exchange is None else exchange, routing_key(call) if key is None else key
        )

    async def event(self, kind: CallKind, **more: Any) -> None:
        """Publish what was made of a call event."""
        call = more.get("call", CALL)
        event = CallEvent(call_id=call, kind=kind, source="test")
        await self.send(event.message_type, event.model_dump_json().encode(), **more)

    async def start(self, **more: Any) -> None:
        await self.event(CallKind.STARTED, **more)

    async def end(self, **more: Any) -> None:
        await self.event(CallKind.ENDED, **more)

    async def call_tool(self, **more: Any) -> None:
        """Ask for a tool of a session that the request would not open."""
        fields = more.pop("fields", {})
        await self.send("tools.call", {"session_id": CALL, "name": "t", "arguments": {}, **fields}, **more)

    async def recipe(
        self, worker: WorkerId = OWNER, *, sessions: list[SessionRecipe] | None = None, **more: Any
    ) -> None:
        made = Recipe(call_id=CALL, worker_id=worker, revision=1, sessions=sessions or [kept()])
        await self.send(Recipe.type, made.model_dump_json().encode(), **more)

    async def arrived(self, worker: WorkerId = OWNER) -> Delivery:
        """The next message in a worker's inbox."""
        return await self.inboxes[worker].next()

    async def reply(self) -> Reply:
        return parse_reply((await self.heard["replies"].next()).message.body)

    async def refused(self) -> str:
        """The code of the error that the next reply says."""
        reply = await self.reply()
        assert reply.error is not None
        return str(reply.error.code)

    def bound(self, call: CallId = CALL) -> list[str]:
        """The queues that a call's messages go to."""
        return self.wire.node.exchanges[self.names.sessions].route(routing_key(call), {})

    def told(self) -> list[tuple[str, str]]:
        """The events of sessions so far: which session, and what became of it."""
        told = []
        while not self.heard["events"].deliveries.empty():
            event = json.loads(self.heard["events"].deliveries.get_nowait().message.body)
            told.append((event["subject"], event["type"].removeprefix("mcp.session.")))
        return told

    async def nothing_more(self) -> None:
        """See that nothing is anywhere that the test has not taken."""
        await passes(LONG)
        for name, one in [*self.inboxes.items(), *self.heard.items()]:
            assert one.deliveries.empty(), name
        unowned = self.wire.node.queues[self.names.unowned]
        assert (unowned.message_count, len(unowned.held)) == (0, 0)


def kept(*, created_at: datetime | None = None, metadata: Json | None = None, restores: int = 0) -> SessionRecipe:
    """The call's first session as a recipe has it."""
    return SessionRecipe(
        session_id=SessionId(CALL), service_name=ECHO, created_at=created_at or now(), last_accessed=now(), timeout=60,
        metadata=metadata or {}, life="life", restores=restores,
    )  # fmt: skip


async def _nothing() -> None:
    """Nothing takes dead letters here."""


@asynccontextmanager
async def placing() -> AsyncIterator[PlacerScene]:
    """A placer; the worker ``OWNER`` has room, ``OTHER`` has not reported. Both take what comes to them."""
    async with simulated_link() as wire:
        names, tasks = wire.names, Tasks()
        workers = Workers(wire.publisher, names, tasks)
        outbox = Outbox(wire.publisher)
        tasks.start(outbox.run(), "outbox")
        reporter, placements = Reporter(ME, names, outbox), Placements(ME, names)
        configured = Configured({ECHO: MCPService(name=ECHO, command=["echo"])}, (), Times())
        endings = Endings(ME, names, wire.publisher, configured.timings.tombstone)
        settler = Settler(wire.publisher, names.dead_letters, dead_lettered=lambda _reason: None, restore=_nothing)
        placer = Placer(
            names, settler, placements, Orphans(names, placements, workers.presence, reporter),
            presence=workers.presence, presence_requests=workers.requests, endings=endings, reporter=reporter,
            configured=configured,
        )  # fmt: skip
        channel = await wire.link.channel()
        for queue in ("workers", "events"):
            await channel.declare_queue(Queue(queue, "of this test", exclusive=True))
        await channel.declare_queue(Queue("replies", "of this test", exclusive=True))
        await channel.bind(Binding(names.events, "events", "session.#"))
        await channel.bind(Binding(names.workers, "workers"))
        await channel.consume("workers", workers.hear, no_ack=True)
        scene = PlacerScene(wire, placer, workers, endings, configured, await wire.link.channel())
        for worker in (OWNER, OTHER):
            await wire.declare(inbox(names, worker))
            scene.inboxes[worker] = await wire.consume(names.inbox(worker))
        for name, queue in (("replies", "replies"), ("events", "events"), ("dead", names.dead_letters)):
            scene.heard[name] = await wire.consume(queue)
        placer.attach(scene.unowned)
        scene.consumer = await scene.unowned.consume(names.unowned, placer.take)
        workers.presence.asked()  # who lives has been asked
        workers.report()
        try:
            yield scene
        finally:
            await placer.detach()
            await endings.stop()
            await tasks.cancel()
