"""Messages of a call that arrive after its end open nothing; messages sent after the end are of a new call."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aio_pika
import pytest

from consumer.broker.link import Link
from consumer.broker.message import CALL_HEADER, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names
from schemas import headers
from schemas.calls import CallKind
from schemas.ids import CallId, WorkerId
from schemas.internal import EndedCalls, Recipe
from schemas.requests import CallStarted
from tests.acceptance.recipes import recipe_of
from tests.harness import WAIT, Cluster, WorkerProcess, config

CALL = CallId("c-1")
CONFIG = config(worker={"grace": 2, "tombstone": 0.1}, routes=[{"services": ["echo"]}])
"""A tombstone that is over before anything can come."""

STARTED = CallStarted(call_id=CALL, kind=CallKind.STARTED)
ANOTHER_LIFE = timedelta(seconds=30)


class Post:
    """Delivers what the inbox of a dead worker gave up, as late as one likes."""

    def __init__(self, publisher: Publisher, names: Names, sent: datetime) -> None:
        self._publisher = publisher
        self._names = names
        self.sent = sent
        """When the messages were sent."""

    async def tell(self, endings: EndedCalls) -> None:
        """As one worker tells the others."""
        message = Message(endings.model_dump_json().encode(), type=endings.type, persistent=False)
        await self._publisher.publish(message, self._names.workers, "", confirm=False)

    async def deliver(self, message: Message, dead: WorkerProcess, *, sent: datetime) -> None:
        # It has been through its exchange, and nobody's queue was bound.
        marks = {headers.ORPHAN_OF: dead.worker_id, headers.RESENT: True, CALL_HEADER: CALL}
        message = replace(message.with_headers(marks), timestamp=sent)
        await self._publisher.publish(message, self._names.unowned, CALL)


@pytest.fixture
async def post(mcp: Cluster, link: Link) -> Post:
    publisher = Publisher()
    publisher.attach(await link.publishing(signed=True))
    return Post(publisher, Names(mcp.prefix), datetime.now(UTC))


async def over(mcp: Cluster) -> WorkerProcess:
    """The call is opened, and ends; returns its worker, which dies, and leaves another that came after the end."""
    owner = await mcp.start(CONFIG)
    await mcp.client.publish_call_event({"call_id": CALL, "kind": "started"})
    await mcp.event("created", call_id=CALL)
    await mcp.client.publish_call_event({"call_id": CALL, "kind": "ended"})
    await mcp.event("closed", call_id=CALL)
    await mcp.start(CONFIG)
    await owner.kill()
    return owner


def start() -> Message:
    return Message(STARTED.model_dump_json().encode(), type=STARTED.type)


async def test_a_recipe_of_a_call_that_has_ended_restores_nothing(mcp: Cluster, post: Post):
    owner = await over(mcp)
    await post.deliver(recipe_of(owner.worker_id, CALL, at=post.sent), owner, sent=post.sent)
    await mcp.until(lambda: mcp.logged("delivery", type=Recipe.type, outcome="not_restored"))
    assert not (await mcp.client.list_sessions()).sessions


async def test_a_start_of_a_call_that_has_ended_opens_nothing(mcp: Cluster, post: Post):
    owner = await over(mcp)
    await post.deliver(start(), owner, sent=post.sent)
    await mcp.until(lambda: mcp.logged("delivery", type=STARTED.type, outcome="ended_before"))
    assert not (await mcp.client.list_sessions()).sessions


async def test_a_raw_start_that_comes_again_after_the_end_opens_nothing(mcp: Cluster):
    """Who had it first was stopped before it could acknowledge."""
    began = datetime.now(UTC)
    await mcp.start(CONFIG)
    await mcp.client.publish_call_event({"call_id": CALL, "kind": "started"})
    await mcp.event("created", call_id=CALL)
    async with await aio_pika.connect(mcp.url) as stopped:
        taken: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
        queue = await (await stopped.channel()).get_queue(f"{mcp.prefix}.calls")
        tag = await queue.consume(taken.put, arguments={"x-priority": 10})
        again = {"call_id": CALL, "kind": "started", "occurred_at": began.isoformat()}
        await mcp.client.publish_call_event(again)
        async with asyncio.timeout(WAIT):
            event = await taken.get()
        await queue.cancel(tag)
        await mcp.client.publish_call_event({"call_id": CALL, "kind": "ended"})
        await mcp.event("closed", call_id=CALL)
        await asyncio.sleep(1.1)  # longer than the tombstone, and the whole seconds that AMQP counts in
        await event.reject(requeue=True)
        await mcp.until(lambda: mcp.logged("delivery", type=STARTED.type, outcome="ended_before"))
    assert not (await mcp.client.list_sessions()).sessions


async def test_what_was_sent_after_the_end_is_of_another_call_of_that_id(mcp: Cluster, post: Post):
    owner = await over(mcp)
    later = datetime.now(UTC) + ANOTHER_LIFE
    await post.deliver(recipe_of(owner.worker_id, CALL, at=later), owner, sent=later)
    await mcp.event("created", call_id=CALL, restored=True)


async def test_an_owner_that_hears_of_its_call_s_end_from_others_closes_it(mcp: Cluster, post: Post):
    """It was cut off, another worker took the end, and its tombstone is over by now."""
    await mcp.start(CONFIG)
    await mcp.client.publish_call_event({"call_id": CALL, "kind": "started"})
    await mcp.event("created", call_id=CALL)
    ended_at = time.time()
    await mcp.start(CONFIG)  # a tombstone lasts less than that
    await post.tell(EndedCalls(worker_id=WorkerId("w-gone"), ended={CALL: ended_at}))
    await mcp.event("closed", call_id=CALL, reason="call_ended")
