"""A worker's parts and consumers, attached to the simulated broker: a worker without its life, in virtual time."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from consumer.broker.link import Link
from consumer.broker.message import Message
from consumer.calls.cluster.inbox_probe import Liveness
from consumer.settings import Settings
from consumer.worker.consumers import Consumers
from consumer.worker.shared_consumers import SharedConsumers
from consumer.worker.wiring import Parts
from schemas.base import Json
from schemas.ids import CallId, WorkerId, routing_key
from schemas.internal import PresenceReport
from tests.calls.asked_server import simulated_servers
from tests.calls.presences import report_of
from tests.calls.simulated_link import BOUND, SimulatedLink, simulated_link
from tests.simulation.broker.client import SimulatedConnection
from tests.simulation.broker.stored import Published
from tests.virtual_time import moment, passes

ME, OTHER = WorkerId("w-1"), WorkerId("w-2")
CALL = CallId("c-1")


@dataclass
class Attached:
    """A worker that takes calls, and what the broker gets from then on."""

    wire: SimulatedLink
    parts: Parts
    consumers: Consumers
    liveness: Liveness
    restarts: list[str]
    story: list[str] = field(default_factory=list)
    """Kinds of messages, with their state or their exchange, and what is done to queues."""

    links: list[Link] = field(default_factory=list)

    def published(self, message: Published, _queues: list[str]) -> None:
        kind = (message.properties.message_type or "").removeprefix("mcp.")
        if kind == PresenceReport.type:
            kind = f"presence: {json.loads(message.body)['worker']['state']}"
        self.story.append(kind)

    def frame(self, _who: str, method: str, args: tuple[Any, ...]) -> None:
        if method in ("basic_cancel", "channel_close", "queue_delete", "queue_unbind"):
            self.story.append(method.replace("_", " "))

    def queue(self, name: str) -> Any:
        return self.wire.node.queues[name]

    def consumed(self) -> set[str]:
        """Which of the queues that all workers share this worker consumes."""
        names = self.wire.names
        shared = {"unowned": names.unowned, "calls": names.calls, "queries": names.queries}
        return {word for word, name in shared.items() if self.queue(name).consumers}

    async def another_link(self) -> Link:
        """Another link to the same broker."""
        connection = cast("Any", partial(SimulatedConnection, self.wire.node))
        link = Link("amqp://guest@sim/", "another", heartbeat=300, connection=connection)
        await link.open()
        self.links.append(link)
        return link

    async def other_reports(self) -> None:
        """Another worker is there, with room."""
        message = Message(report_of(OTHER).model_dump_json().encode(), type=PresenceReport.type, persistent=False)
        await self.wire.publisher.publish(message, self.wire.names.workers, "", confirm=False)
        await passes(0.1)

    async def send(self, kind: str, body: Json, *, exchange: str | None = None, call: CallId = CALL) -> None:
        message = Message(json.dumps(body).encode(), type=kind)
        exchange = self.wire.names.sessions if exchange is None else exchange
        await self.wire.publisher.publish(message, exchange, routing_key(call))

    async def open(self, call: CallId = CALL) -> None:
        """Open a session, which this worker is given: nobody else has room yet."""
        await self.send("session.create", {"session_id": call, "service_name": "echo", "timeout": 3600}, call=call)
        async with asyncio.timeout(BOUND):
            while call not in self.parts.ownership.owned_calls.calls or not self.parts.sessions.count():
                await passes(0.05)
        await passes(0.5)

    async def call_tool(self, takes: float) -> None:
        """Have a tool called that takes its time (s)."""
        asked = {"session_id": CALL, "name": "note", "arguments": {"number": "1", "takes": takes}}
        await self.send("tools.call", asked, exchange=self.wire.names.requests)
        await passes(0.1)


@asynccontextmanager
async def attached(
    worker: Mapping[str, Any] | None = None, *,
    before: Callable[[SimulatedLink], Awaitable[None]] | None = None, **more: Any,
) -> AsyncIterator[Attached]:  # fmt: skip
    """A worker that is ready; ``worker`` are settings of it, beside its id.

    ``before`` is what happens at the broker before it comes.
    """
    settings = Settings.model_validate(
        {"services": {"echo": {"command": ["x"]}}, "worker": {"worker_id": ME, **(worker or {})}, **more}
    )
    async with simulated_link() as wire:
        parts = Parts(settings, starter=simulated_servers())
        up, restarts = asyncio.Event(), list[str]()
        up.set()
        parts.publisher.attach(await wire.link.publishing(signed=True))
        liveness = Liveness(parts.publisher, up, parts.names.inbox(ME), restarts.append)
        if before is not None:
            await before(wire)
        shared_consumers = SharedConsumers(
            parts.names, parts.gate, placer=parts.placer, intake=parts.intake, queries=parts.queries, prefetch=10
        )
        consumers = Consumers(
            ME, parts.names, settings.worker, parts.link, claim=parts.claim, hear=parts.peers.hear, liveness=liveness,
            gate=parts.gate, owner=parts.owner, owned_calls=parts.ownership.owned_calls, rpc_client=parts.rpc_client,
            presence=parts.presence, presence_requests=parts.presence_requests, shared=shared_consumers,
            tasks=parts.tasks,
        )  # fmt: skip
        scene = Attached(wire, parts, consumers, liveness, restarts)
        parts.tasks.start(parts.reports.keep_announcing(up), "presence")
        parts.tasks.start(parts.outbox.run(), "outbox")
        try:
            await consumers.attach(wire.link)
            parts.state = "ready"
            await parts.reports.announce()
            await passes(1.0)
            yield scene
        finally:
            wire.node.on_publish, wire.node.trace = lambda *_: None, None
            await consumers.detached()
            await parts.sessions.shutdown()
            await parts.mcp.shutdown()
            await parts.owner.stop(0)
            await parts.endings.stop()
            await parts.tasks.cancel()
            for link in scene.links:
                await link.close()


def follow(scene: Attached) -> float:
    """Write down what the broker gets from now on; returns when that is (s since the epoch)."""
    scene.story.clear()
    scene.wire.node.on_publish, scene.wire.node.trace = scene.published, scene.frame
    return moment()
