"""What the gate does with each message: let in, refused and answered, or refused in silence."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from consumer.broker.message import Delivery, Message
from consumer.broker.topology import Queue
from consumer.calls.messages.gate import Gate
from consumer.calls.messages.origin import Origins
from consumer.concurrency.task_set import Tasks
from schemas.ids import WorkerId
from schemas.internal import MAX_RECIPE
from schemas.json_values import MAX_VALUES
from schemas.replies import parse_reply
from tests.calls.simulated_link import BOUND, Heard, Settled, SimulatedLink, delivered, simulated_link

ME = WorkerId("host-1-a1b2c3d4")
MOST = 1000
GET = b'{"session_id": "c-1"}'


@dataclass
class Scene:
    """A gate, the handler behind it, and where dead letters and answers go."""

    wire: SimulatedLink
    dead: Heard
    answers: Heard
    gate: Gate
    let_in: "asyncio.Queue[Delivery]" = field(default_factory=asyncio.Queue)

    def take(self, kind: str, body: bytes = GET, **more: object) -> Settled:
        """Deliver through the gate, to the inbox unless it is said otherwise."""
        where = {"queue": self.wire.names.inbox(ME), "exchange": self.wire.names.sessions, "key": "c-1"}
        delivery, settled = delivered(kind, body, **{**where, **more})  # type: ignore[arg-type]
        self.gate.before(self.let_in.put_nowait)(delivery)
        return settled

    async def handled(self) -> Delivery:
        async with asyncio.timeout(BOUND):
            return await self.let_in.get()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with simulated_link() as wire:
        tasks, origins = Tasks(), Origins(wire.names, lambda: "guest")
        await wire.declare(Queue("answers", ""))
        gate = Gate(wire.settler, wire.names, origins, max_message=MOST, start=tasks.start)
        dead, answers = await wire.consume(wire.names.dead_letters), await wire.consume("answers")
        yield Scene(wire, dead, answers, gate)
        await tasks.cancel()


async def test_what_may_come_in_is_handled_at_once_and_says_by_whom_it_is(scene: Scene):
    for user, by_worker in (("guest", True), ("somebody", False), (None, False)):
        scene.take("session.get", user=user)
        assert (await scene.handled()).by_worker is by_worker


@pytest.mark.parametrize(
    ("kind", "size", "user", "goes"),
    [
        ("session.get", MOST, "somebody", "in"),
        ("session.get", MOST + 1, "somebody", "too_large"),
        ("session.get", MOST + 1, "guest", "too_large"),
        ("call.recipe", MOST + 1, "guest", "in"),
        ("call.recipe", MAX_RECIPE, "guest", "in"),
        ("call.recipe", MAX_RECIPE + 1, "guest", "too_large"),
        ("call.recipe", MOST, "somebody", "invalid_message"),
        ("call.ended", MOST, "somebody", "invalid_message"),
        ("owner.check", MOST, "guest", "in"),
    ],
)
async def test_who_says_what_in_how_many_bytes(scene: Scene, kind: str, size: int, user: str, goes: str):
    settled = scene.take(kind, GET + b" " * (size - len(GET)), user=user, reply_to="answers", correlation_id="1")
    if goes == "in":
        assert len((await scene.handled()).message.body) == size
        assert settled.how == [], "who handles it settles it"
        return
    assert await settled.wait() == "acked"
    dead = await scene.dead.next()
    assert dead.message.headers["x-mcp-reason"] == goes
    answer = parse_reply((await scene.answers.next()).message.body)
    assert answer.error is not None
    assert answer.error.code == "INVALID_MESSAGE"
    assert scene.let_in.empty()


@pytest.mark.parametrize(("user", "goes_in"), [("guest", True), ("somebody", False)])
async def test_only_a_worker_may_send_more_values_than_are_parsed_quickly(scene: Scene, user: str, goes_in: bool):
    gate = scene.gate
    gate._max_message = MAX_RECIPE
    settled = scene.take("session.get", json.dumps([0] * (MAX_VALUES + 1)).encode(), user=user)
    if goes_in:
        await scene.handled()
    else:
        assert await settled.wait() == "acked"
        assert (await scene.dead.next()).message.headers["x-mcp-reason"] == "too_large"


async def test_what_would_be_answered_into_a_queue_of_the_workers_is_refused_in_silence(scene: Scene):
    inbox = scene.wire.names.inbox(ME)
    await scene.wire.declare(Queue(inbox, ""))
    heard = await scene.wire.consume(inbox)
    for body in (GET, b" " * (MOST + 1)):
        settled = scene.take("session.get", body, user="somebody", reply_to=inbox, correlation_id="1")
        assert await settled.wait() == "acked"
        await scene.dead.next()
    await scene.wire.publisher.publish(Message(b"the first that comes"), "", inbox)
    assert (await heard.next()).message.body == b"the first that comes"


async def test_who_publishes_a_call_event_gets_no_reply_whatever_is_wrong_with_it(scene: Scene):
    where = {"queue": scene.wire.names.calls, "exchange": scene.wire.names.calls, "reply_to": "answers"}
    settled = scene.take("", b" " * (MOST + 1), user="somebody", **where)
    assert await settled.wait() == "acked"
    assert (await scene.dead.next()).message.headers["x-mcp-reason"] == "too_large"
    await scene.wire.publisher.publish(Message(b"the first that comes"), "", "answers")
    assert (await scene.answers.next()).message.body == b"the first that comes"


async def test_a_workers_word_without_a_name_is_refused(scene: Scene):
    settled = scene.take("call.ended", user=None)
    assert await settled.wait() == "acked"
    assert (await scene.dead.next()).message.headers["x-mcp-reason"] == "invalid_message"
