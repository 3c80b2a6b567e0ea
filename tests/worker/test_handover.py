"""What a worker that leaves passes on of its calls: a recipe, an end, or nothing. The MCP server is a real one."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumer.broker.topology import Queue, inbox
from consumer.settings import Settings
from consumer.worker.wiring import Parts
from schemas import headers
from schemas.ids import CallId, WorkerId, routing_key
from schemas.internal import Recipe
from schemas.requests import CallEnded, SessionCreate
from tests.calls.simulated_link import BOUND, Heard, SimulatedLink, delivered, simulated_link
from tests.harness import ECHO

ME, CALL = WorkerId("w-1"), CallId("c-1")


@dataclass
class Scene:
    """A worker that owns a call, and the queue of what nobody owns."""

    wire: SimulatedLink
    parts: Parts
    unowned: Heard

    async def take(self, kind: str, body: dict[str, object]) -> None:
        """Have the owner carry a message out."""
        names = self.parts.names
        delivery, settled = delivered(
            kind, json.dumps(body).encode(), queue=names.inbox(ME), exchange=names.sessions, key=routing_key(CALL),
            user="guest", headers={headers.PLACEMENT: "w-2/1"},
        )  # fmt: skip
        self.parts.gate.before(self.parts.owner.take)(delivery)
        assert await settled.wait() == "acked"


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    settings = Settings.model_validate(
        {
            "services": {"echo": {"command": ECHO}},
            "worker": {"worker_id": ME},
            "session": {"sandbox_dir": str(tmp_path)},
        }
    )
    async with simulated_link() as wire:
        parts = Parts(settings)
        parts.publisher.attach(await wire.link.publishing(signed=True))
        parts.tasks.start(parts.outbox.run(), "outbox")
        parts.presence.asked()
        await wire.declare(inbox(parts.names, ME))
        await wire.declare(Queue("fast", ""))
        parts.ownership.owned_calls.attach(await wire.link.channel(), "fast")
        made = Scene(wire, parts, await wire.consume(parts.names.unowned))
        await made.take(SessionCreate.type, {"session_id": CALL, "service_name": "echo"})
        yield made
        await parts.sessions.shutdown()
        await parts.mcp.shutdown()
        await parts.owner.stop(0)
        await parts.endings.stop()
        await parts.tasks.cancel()


@pytest.mark.parametrize("others", [True, False], ids=["others are there", "nobody else is there"])
async def test_a_call_is_handed_over_by_its_recipe_if_there_is_somebody(scene: Scene, others: bool):
    async with asyncio.timeout(BOUND):
        await scene.parts.owner.leave(others, 5.0)
    assert scene.parts.sessions.count() == 0
    assert scene.parts.ownership.owned_calls.calls == {}
    if not others:
        assert scene.unowned.deliveries.empty()
        return
    given = await scene.unowned.next()
    assert (given.type, given.exchange, given.routing_key) == (Recipe.type, scene.parts.names.unowned, CALL)
    assert given.message.headers[headers.RETURNED] == ME
    assert given.message.headers[headers.RETURNS] == headers.FOR_GOOD
    recipe = Recipe.model_validate_json(given.message.body)
    assert [str(one.session_id) for one in recipe.sessions] == [str(CALL)]


async def test_of_a_call_that_has_ended_its_end_is_passed_on(scene: Scene):
    await scene.take(CallEnded.type, {"call_id": CALL, "kind": "ended", "source": "test"})
    async with asyncio.timeout(BOUND):
        await scene.parts.owner.leave(True, 5.0)
    given = await scene.unowned.next()
    assert (given.type, given.message.headers[headers.RETURNED]) == (CallEnded.type, ME)
    assert scene.unowned.deliveries.empty()


async def test_a_call_without_a_session_leaves_nothing(scene: Scene):
    await scene.take("session.close", {"session_id": CALL})
    async with asyncio.timeout(BOUND):
        await scene.parts.owner.leave(True, 5.0)
    assert scene.unowned.deliveries.empty()
