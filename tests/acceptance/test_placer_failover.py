"""What a placer leaves half done: it has bound and sent on, and goes before it can acknowledge.

The placer is the test: the protocol between placer and owners is messages and bindings, and nothing else.
"""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from consumer.broker.channel import Channel
from consumer.broker.declare import apply
from consumer.broker.link import Link
from consumer.broker.message import CALL_HEADER, Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Binding, Names, Queue, cluster_topology
from consumer.calls.messages import forwarding
from schemas import headers
from schemas.ids import ServiceName, SessionId, WorkerId
from schemas.internal import Recipe
from schemas.requests import SessionCreate, ToolsCall
from tests.acceptance.recipes import recipe_of
from tests.harness import WAIT, Cluster, WorkerProcess, config

GRACE = 2
CONFIG = config(worker={"grace": GRACE})


class HalfAPlacer:
    """Elected before any worker is there; does what it is told for the call c-1, and acknowledges nothing."""

    def __init__(self, link: Link, names: Names) -> None:
        self._link = link
        self._names = names
        self._publisher = Publisher()
        self._channel: Channel
        self._unowned: asyncio.Queue[Delivery] = asyncio.Queue()
        self.answers_to = f"{names.prefix}.replies.half"

    async def begin(self) -> None:
        self._publisher.attach(await self._link.publishing(signed=True))
        self._channel = await self._link.channel()
        await self._channel.consume(self._names.unowned, self._unowned.put_nowait)

    async def go(self) -> None:
        """Another one is elected, and gets what was not acknowledged."""
        await self._channel.close()

    async def next(self, kind: str) -> Delivery:
        """The next message of this type."""
        async with asyncio.timeout(WAIT):
            while (delivery := await self._unowned.get()).type != kind:
                pass
            return delivery

    def _leading_to(self, worker: WorkerProcess) -> Binding:
        return Binding(self._names.sessions, self._names.inbox(WorkerId(worker.worker_id)), "c-1")

    async def bind(self, worker: WorkerProcess) -> None:
        await self._channel.bind(self._leading_to(worker))

    async def unbind(self, worker: WorkerProcess) -> None:
        await self._channel.unbind(self._leading_to(worker))

    async def send_on(self, message: Message, worker: WorkerProcess) -> None:
        marks = {CALL_HEADER: "c-1", headers.PLACEMENT: "half/1"}
        where = self._names.inbox(WorkerId(worker.worker_id))
        await self._publisher.publish(forwarding.onward(message, marks), "", where)

    async def publish_unowned(self, message: Message) -> None:
        """As if no exchange had known where to, and for the second time: a placer has to decide."""
        await self._publisher.publish(message.with_headers({headers.RESENT: True}), self._names.unowned, "c-1")

    async def answers(self) -> "asyncio.Queue[Delivery]":
        """What comes to the reply address ``answers_to``."""
        channel = await self._link.channel()
        await channel.declare_queue(Queue(self.answers_to, "", exclusive=True))
        heard: asyncio.Queue[Delivery] = asyncio.Queue()
        await channel.consume(self.answers_to, heard.put_nowait)
        return heard


@pytest.fixture
async def half(mcp: Cluster, link: Link) -> HalfAPlacer:
    await apply(await link.channel(), cluster_topology(Names(mcp.prefix), grace=GRACE), link=link)
    placer = HalfAPlacer(link, Names(mcp.prefix))
    await placer.begin()
    return placer


async def opened_on(half: HalfAPlacer, mcp: Cluster, worker: WorkerProcess) -> Delivery:
    """Open c-1 there; returns what asked for it, which is not acknowledged."""
    request = SessionCreate(session_id=SessionId("c-1"), service_name=ServiceName("echo"))
    await half.publish_unowned(Message(request.model_dump_json().encode(), type=request.type, message_id="m-1"))
    create = await half.next(SessionCreate.type)
    await half.bind(worker)
    await half.send_on(create.message, worker)
    await mcp.event("created", call_id="c-1", worker_id=worker.worker_id)
    return create


async def lives_on(mcp: Cluster, worker: WorkerProcess) -> None:
    sessions = (await mcp.client.list_sessions()).sessions
    assert {name: one.worker_id for name, one in sessions.items()} == {"c-1": worker.worker_id}


async def test_a_start_that_was_placed_is_not_placed_again(mcp: Cluster, half: HalfAPlacer):
    first = await mcp.start(CONFIG)
    await mcp.start(CONFIG)
    await opened_on(half, mcp, first)
    await half.go()
    await mcp.until(lambda: len(mcp.logged("delivery", type=SessionCreate.type, outcome="done")) == 2)
    await lives_on(mcp, first)
    assert len(mcp.of("created")) == 1


async def test_a_call_that_was_restored_is_not_restored_again(mcp: Cluster, half: HalfAPlacer):
    dead = await mcp.start(CONFIG)
    await opened_on(half, mcp, dead)
    heir = await mcp.start(CONFIG)
    await mcp.start(CONFIG)
    await dead.kill()
    recipe = await half.next(Recipe.type)
    await half.unbind(dead)
    await half.bind(heir)
    await half.send_on(recipe.message, heir)
    await mcp.event("created", restored=True, worker_id=heir.worker_id)
    await half.go()
    await mcp.until(lambda: mcp.logged("delivery", type=Recipe.type, outcome="restore_not_needed"))
    await lives_on(mcp, heir)
    assert len(mcp.of("created", restored=True)) == 1
    await mcp.event("lost", worker_id=dead.worker_id)  # that the former placer has told it, nobody can know


def recipe_of_the_dead(revision: int, *names: str) -> Message:
    return recipe_of("dead", *names, at=datetime.now(UTC), revision=revision)


async def test_what_a_newer_recipe_has_more_is_restored_as_well(mcp: Cluster, half: HalfAPlacer):
    """Killed between writing a recipe and acknowledging the one before: both come back."""
    heir = await mcp.start(CONFIG)
    await half.bind(heir)
    await half.send_on(recipe_of_the_dead(4, "c-1"), heir)
    await mcp.event("created", restored=True, session_id="c-1")
    await half.send_on(recipe_of_the_dead(5, "c-1", "c-1#more"), heir)
    await mcp.event("created", restored=True, session_id="c-1#more")
    await mcp.client.close("c-1#more")
    for outdated in (recipe_of_the_dead(4, "c-1", "c-1#old"), recipe_of_the_dead(6, "c-1", "c-1#more")):
        await half.send_on(outdated, heir)
    await mcp.until(lambda: len(mcp.logged("delivery", type=Recipe.type, outcome="restore_not_needed")) == 2)
    assert sorted((await mcp.client.list_sessions()).sessions) == ["c-1"]
    assert len(mcp.of("created")) == 2


async def test_a_command_that_comes_again_before_the_recipe_hides_no_session(mcp: Cluster, half: HalfAPlacer):
    """Killed between answering a command and acknowledging it: the command comes back, and the recipe after it."""
    heir = await mcp.start(CONFIG)
    await opened_on(half, mcp, heir)
    await half.send_on(recipe_of_the_dead(5, "c-1", "c-1#more"), heir)
    await mcp.event("created", restored=True, session_id="c-1#more")
    assert sorted((await mcp.client.list_sessions()).sessions) == ["c-1", "c-1#more"]
    assert len(mcp.of("created")) == 2


async def test_a_tool_call_that_was_answered_is_answered_the_same(mcp: Cluster, half: HalfAPlacer):
    owner = await mcp.start(CONFIG)
    await mcp.start(CONFIG)
    await (await opened_on(half, mcp, owner)).ack()
    answers = await half.answers()
    request = ToolsCall(session_id=SessionId("c-1"), name="counter")
    asked = Message(request.model_dump_json().encode(), type=request.type, message_id="m-2", reply_to=half.answers_to)
    await half.publish_unowned(asked)
    call = await half.next(ToolsCall.type)
    await half.send_on(call.message, owner)
    async with asyncio.timeout(WAIT):
        first = (await answers.get()).message.body
        await half.go()
        assert (await answers.get()).message.body == first
    assert json.loads(json.loads(first)["result"]["text"]) == {"count": 1}
    assert json.loads((await mcp.client.call_tool("c-1", "counter")).text) == {"count": 2}
