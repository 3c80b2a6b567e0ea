"""An owner that consumes its own inbox on the simulated broker, and what the broker gets of it, in order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from consumer.broker.channel import Channel
from consumer.broker.topology import Binding, Queue, inbox
from consumer.calls.context import Bounds
from consumer.calls.owned_call import CallSession
from consumer.calls.requests.idempotency import Identity, KeptAnswer
from consumer.concurrency.task_set import Tasks
from schemas.ids import SessionId, routing_key
from schemas.internal import ClosedSessions, Recipe
from schemas.requests import SessionClose, SessionCreate
from tests.calls.asked_server import simulated_servers
from tests.calls.asking import ask_for
from tests.calls.owner_parts import CALL, ECHO, ME, OwnerParts, owner_parts
from tests.calls.simulated_link import SimulatedLink, simulated_link
from tests.simulation.broker.stored import Published
from tests.simulation.world.servers import SimulatedServers
from tests.virtual_time import passes

ID = SessionId(CALL)
A_WHILE = 0.1
"""Seconds in which everything is done that has begun; less than RabbitMQ keeps in an inbox."""


@dataclass
class Owning:
    """An owner on a link, and what the broker gets, in its order."""

    wire: SimulatedLink
    parts: OwnerParts
    servers: SimulatedServers
    channel: Channel
    story: list[str] = field(default_factory=list)
    reports: int = 0
    links: int = 0

    @property
    def inbox(self) -> str:
        return self.wire.names.inbox(ME)

    @property
    def binding(self) -> Binding:
        """By which the call is ours."""
        return Binding(self.wire.names.sessions, self.inbox, routing_key(CALL))

    def published(self, message: Published, queues: list[str]) -> None:
        kind = (message.properties.message_type or "").removeprefix("mcp.session.")
        if "x-death" not in message.headers and kind != ClosedSessions.type:
            self.story.append(kind)

    def frame(self, _who: str, method: str, _args: tuple[Any, ...]) -> None:
        if method in ("basic_ack", "queue_bind", "queue_unbind"):
            self.story.append(method.removeprefix("basic_").removeprefix("queue_"))

    def reported(self) -> None:
        self.reports += 1

    async def told(self) -> list[str]:
        """What the broker got since the last time."""
        await passes(A_WHILE)
        story, self.story = self.story, []
        return story

    async def open(self) -> CallSession:
        """Open the call's session, without anything that would tell of it."""
        await self.parts.carry_out(SessionCreate(session_id=ID, service_name=ECHO, timeout=3600))
        (session,) = self.parts.call.sessions.values()
        return session

    async def opened(self) -> CallSession:
        """The call's session, which is told of, and whose recipe the owner holds."""
        session = await self.open()
        await self.parts.recovery.keep(CALL)
        await self.told()
        assert self.parts.call.recipe.held is not None
        return session

    async def close(self) -> None:
        """Close the session, as a command does."""
        await self.parts.carry_out(SessionClose(session_id=ID))

    async def lose_link(self) -> None:
        """The link is lost; RabbitMQ has what was not acknowledged."""
        self.parts.owned_calls.detach()
        await self.channel.close()

    async def new_link(self) -> None:
        """There is another, on which the inbox is consumed."""
        self.links += 1
        self.channel = await self.wire.link.channel()
        await self.wire.declare(Queue(f"fast.{self.links}", "of this test"))
        self.parts.owned_calls.attach(self.channel, f"fast.{self.links}")
        await self.channel.consume(self.inbox, self.parts.owner.take)

    async def answered(self) -> None:
        """A tool call of the call was answered under a key."""
        claim = self.parts.answers.of(self.parts.call).claim("k", Identity.of(ask_for("t")))
        with claim:
            claim.give(KeptAnswer(b"{}"))

    def recipe(self) -> Recipe:
        return self.parts.owned_calls.recipe(self.parts.call, self.parts.call.sessions.values())


@asynccontextmanager
async def owning(
    bounds: Bounds = Bounds(),  # noqa: B008 - a value
    servers: SimulatedServers | None = None,
) -> AsyncIterator[Owning]:
    servers = servers or simulated_servers()
    async with simulated_link() as wire, owner_parts(servers, publisher=wire.publisher, bounds=bounds) as parts:
        tasks = Tasks()
        tasks.start(parts.outbox.run(), "outbox")
        tasks.start(parts.heartbeat.run(), "heartbeat")
        await wire.declare(inbox(wire.names, ME))
        scene = Owning(wire, parts, servers, await wire.link.channel())
        await scene.channel.bind(scene.binding)
        await scene.new_link()
        parts.presence.report_soon = scene.reported
        wire.node.on_publish, wire.node.trace = scene.published, scene.frame
        yield scene
        wire.node.on_publish, wire.node.trace = lambda *_: None, None
        await tasks.cancel()
