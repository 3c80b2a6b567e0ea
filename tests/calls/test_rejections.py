"""What is acknowledged when RabbitMQ has the event that says what was not opened, and what does not wait for it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from consumer.broker.message import Message
from consumer.broker.topology import Binding, Queue
from schemas.base import Json
from schemas.ids import CallId, SessionId, WorkerId, routing_key
from schemas.internal import Recipe
from schemas.replies import parse_reply
from tests.calls.owner_parts import CALL, ECHO
from tests.calls.owning import Owning, owning
from tests.calls.placing import LONG, kept, placing
from tests.calls.simulated_link import Heard, Settled, SimulatedLink, delivered
from tests.simulation.world.servers import Books, SimulatedServers
from tests.virtual_time import in_virtual_time, passes

ID = SessionId(CALL)
WAITS = 3.0
"""How long (s) RabbitMQ takes no event; less than a publisher waits for its confirmation."""

RESERVED_KEY = {"session_id": ID, "service_name": ECHO, "metadata": {"call": {}}}
NO_SERVICE = {"session_id": CALL, "service_name": "nope"}


def have_events_wait(wire: SimulatedLink) -> None:
    """Have RabbitMQ take no event for a while."""
    wire.node.leaderless["events"] = asyncio.get_running_loop().time() + WAITS


@dataclass
class Rejecting:
    """The owner of a call, and who hears its replies and events."""

    scene: Owning
    replies: Heard
    events: Heard

    def take(self, kind: str, body: Json, *, reply_to: str | None = None, requests: bool = False) -> Settled:
        """Have the owner take a message of the call; returns what becomes of its delivery."""
        names = self.scene.wire.names
        delivery, settled = delivered(
            kind, json.dumps(body).encode(), queue=names.inbox(WorkerId("w-1")),
            exchange=names.requests if requests else names.sessions, key=routing_key(CALL), reply_to=reply_to,
            correlation_id=kind,
        )  # fmt: skip
        self.scene.parts.owner.take(delivery)
        return settled

    async def refused(self) -> str:
        """The code of the error that the next reply says."""
        reply = parse_reply((await self.replies.next()).message.body)
        assert reply.error is not None
        return str(reply.error.code)

    def rejections(self) -> int:
        """How many came since the last time."""
        queue, count = self.events.deliveries, 0
        while not queue.empty():
            count += queue.get_nowait().type == "mcp.session.rejected"
        return count


@asynccontextmanager
async def rejecting(**more: Any) -> AsyncIterator[Rejecting]:
    async with owning(**more) as scene:
        wire = scene.wire
        for name in ("replies", "events"):
            await wire.declare(Queue(name, "of this test"))
        await scene.channel.bind(Binding(wire.names.events, "events", "session.#"))
        yield Rejecting(scene, await wire.consume("replies"), await wire.consume("events"))


def failing() -> SimulatedServers:
    """Servers that do not start."""
    return SimulatedServers("w-1", Books(), lambda: 0.5, 1.0)


def recipe() -> Json:
    return dict(Recipe(call_id=CALL, worker_id=WorkerId("w-2"), revision=1, sessions=[kept()]).model_dump(mode="json"))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("session.create", RESERVED_KEY),
        ("session.create", {"session_id": ID, "service_name": ECHO}),
        (Recipe.type, {}),
    ],
    ids=["a refused request", "a request whose server fails", "a recipe whose server fails"],
)
@in_virtual_time
async def test_an_owner_acknowledges_what_opens_nothing_when_rabbitmq_has_its_rejection(kind: str, body: Json):
    async with rejecting(servers=failing()) as owner:
        have_events_wait(owner.scene.wire)
        settled = owner.take(kind, body or recipe())
        await passes(WAITS - 0.5)
        assert settled.how == []
        await passes(1)
        assert (settled.how, owner.rejections()) == (["acked"], 1)


@in_virtual_time
async def test_a_refusal_beside_an_open_session_or_an_untold_end_is_acknowledged_as_late():
    async with rejecting() as owner:
        call = owner.scene.parts.call
        await owner.scene.opened()
        beside = RESERVED_KEY | {"session_id": f"{CALL}#beside"}
        have_events_wait(owner.scene.wire)
        settled = owner.take("session.create", beside)
        await passes(WAITS - 0.5)
        assert (settled.how, len(call.sessions)) == ([], 1)
        await passes(1)
        assert (settled.how, owner.rejections()) == (["acked"], 1)
        call.check.link_lost()
        await owner.scene.close()
        have_events_wait(owner.scene.wire)
        settled = owner.take("session.create", beside)
        await passes(WAITS - 0.5)
        assert (settled.how, len(call.events.pending)) == ([], 1)
        await passes(1)
        assert (settled.how, owner.rejections()) == (["acked"], 1)


@in_virtual_time
async def test_without_a_link_a_refused_request_goes_back_to_the_queue_and_its_rejection_is_told_later():
    async with rejecting() as owner:
        publishing, wire = owner.scene.wire.publisher, owner.scene.wire
        publishing.detach()
        settled = owner.take("session.create", RESERVED_KEY)
        assert await settled.wait() == "requeued"
        publishing.attach(await wire.link.publishing(signed=True))
        await passes(1)
        assert owner.rejections() == 1


@in_virtual_time
async def test_a_refusal_that_only_a_reply_tells_does_not_wait_for_events_of_others():
    async with rejecting() as owner:
        have_events_wait(owner.scene.wire)
        owner.scene.parts.outbox.put(Message(b"", type="of another"), owner.scene.wire.names.events, "session.x")
        refused = owner.take("session.create", RESERVED_KEY, reply_to="replies")
        await passes(0.5)
        assert (await owner.refused(), refused.how) == ("INVALID_MESSAGE", ["acked"])


@in_virtual_time
async def test_a_tool_call_whose_session_does_not_start_is_answered_before_that_is_told():
    async with rejecting(servers=failing()) as owner:
        have_events_wait(owner.scene.wire)
        call = {"session_id": ID, "name": "note", "service_name": ECHO}
        used = owner.take("tools.call", call, reply_to="replies", requests=True)
        await passes(0.5)
        assert (await owner.refused(), used.how) == ("START_FAILED", ["acked"])
        assert owner.rejections() == 0
        await passes(WAITS)
        assert owner.rejections() == 1


@in_virtual_time
async def test_a_placer_acknowledges_what_it_refuses_when_rabbitmq_has_its_rejection():
    async with placing() as scene:
        unowned = scene.wire.node.queues[scene.names.unowned]
        have_events_wait(scene.wire)
        await scene.send("session.create", NO_SERVICE, reply_to=None)
        await passes(WAITS - 0.5)
        assert (len(unowned.held), scene.told()) == (1, [])
        await passes(1)
        assert (len(unowned.held), scene.told()) == (0, [(CALL, "rejected")])
        await scene.nothing_more()


@in_virtual_time
async def test_a_placer_without_room_acknowledges_a_start_when_rabbitmq_has_its_rejection_and_a_tool_call_at_once():
    async with placing() as scene:
        unowned = scene.wire.node.queues[scene.names.unowned]
        scene.workers.report(sessions=5)
        scene.wire.node.leaderless["events"] = asyncio.get_running_loop().time() + 4 * WAITS
        await scene.start(reply_to=None)
        other = CallId("c-2")
        await scene.call_tool(fields={"session_id": other, "service_name": ECHO}, call=other)
        await passes(2 * WAITS)
        assert await scene.refused() == "SERVICE_SESSION_LIMIT"
        assert (len(unowned.held), scene.told()) == (1, [])
        await passes(3 * WAITS)
        assert len(unowned.held) == 0
        assert sorted(what for _, what in scene.told()) == ["rejected"] * 2
        await passes(LONG)
        assert scene.told() == []
