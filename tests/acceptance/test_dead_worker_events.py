"""What is told of sessions whose worker has died: nothing is lost that was never created."""

import asyncio
from datetime import UTC, datetime

import pytest

from consumer.broker.channel import Channel
from consumer.broker.link import Link
from consumer.broker.message import Delivery
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Binding, Names, Queue, inbox
from consumer.calls.cluster.presence_requests import PresenceRequests
from consumer.concurrency.task_set import Tasks
from schemas import headers
from schemas.ids import CallId, WorkerId, routing_key
from schemas.internal import PresenceReport, Recipe
from tests.acceptance.recipes import recipe_of
from tests.harness import WAIT, Cluster, config

GRACE = 2
CONFIG = config(worker={"grace": GRACE}, routes=[{"services": ["echo"]}])
CALL = CallId("c-1")
GONE = WorkerId("w-gone")


async def heard(link: Link, channel: Channel, exchange: str) -> "asyncio.Queue[Delivery]":
    """What an exchange brings from now on."""
    await channel.declare_queue(Queue(f"{exchange}.heard", "", exclusive=True))
    await channel.bind(Binding(exchange, f"{exchange}.heard"))
    queue: asyncio.Queue[Delivery] = asyncio.Queue()
    await channel.consume(f"{exchange}.heard", queue.put_nowait, no_ack=True)
    return queue


async def test_a_worker_that_died_before_it_told_of_a_session_is_spoken_for(mcp: Cluster, link: Link):
    """Its recipe had left already."""
    names = Names(mcp.prefix)
    heir = await mcp.start(CONFIG)
    channel, publisher = await link.channel(), Publisher()
    publisher.attach(await link.publishing(signed=True))
    await channel.declare_queue(inbox(names, GONE))
    now = datetime.now(UTC)
    message = recipe_of(GONE, CALL, at=now, metadata={"of": "mine"})
    await publisher.publish(message, "", names.inbox(GONE))
    deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
    await channel.consume(names.inbox(GONE), deliveries.put_nowait)
    async with asyncio.timeout(WAIT):
        delivery = await deliveries.get()
    assert delivery.settle is not None
    await delivery.settle(requeue=False)
    lost = await mcp.event("lost", worker_id=GONE)
    created = await mcp.event("created", worker_id=GONE)
    assert mcp.events.index(created) < mcp.events.index(lost)
    assert created.source == lost.source
    assert (created.id, lost.id) == ("life-1.created", "life-1")
    assert created.time == now
    assert (created.data["metadata"], created.data["is_alive"], lost.data["is_alive"]) == ({"of": "mine"}, True, False)
    await mcp.event("created", worker_id=heir.worker_id, restored=True)


async def test_what_its_worker_has_told_is_not_told_again(mcp: Cluster, link: Link):
    owner, heir = await mcp.start(CONFIG), await mcp.start(CONFIG)
    names, publisher = Names(mcp.prefix), Publisher()
    publisher.attach(await link.publishing(signed=True))
    reports = await heard(link, await link.channel(), names.workers)
    await mcp.client.publish_call_event({"call_id": CALL, "kind": "started"})
    created = await mcp.event("created", call_id=CALL)
    owner, heir = (owner, heir) if created.data["worker_id"] == owner.worker_id else (heir, owner)
    async with asyncio.timeout(WAIT):
        told = False
        requests = PresenceRequests(publisher, names.workers, WorkerId("tester"), Tasks())
        while not told:
            await requests.send()
            reporting: set[str] = set()
            while reporting < {owner.worker_id, heir.worker_id}:
                delivery = await reports.get()
                if delivery.type == PresenceReport.type:
                    report = PresenceReport.model_validate_json(delivery.message.body)
                    reporting.add(report.worker.worker_id)
                    told = told or (report.worker.worker_id == owner.worker_id and report.told > 0)
    await owner.kill()
    lost = await mcp.event("lost", worker_id=owner.worker_id)
    assert created.id == f"{lost.id}.created"
    await mcp.event("created", worker_id=heir.worker_id, restored=True)
    assert len(mcp.of("created", worker_id=owner.worker_id)) == 1


async def test_its_sessions_are_told_of_though_its_recipe_was_sent_again_before(mcp: Cluster, link: Link):
    """It had reported while its calls were taken from it, and then it died; nobody else owns the call."""
    heir = await mcp.start(CONFIG)
    await send_again(mcp, link, {})
    await mcp.event("lost", worker_id=GONE)
    await mcp.event("created", worker_id=heir.worker_id, restored=True)


@pytest.mark.parametrize("told", [False, True])
async def test_who_owns_the_call_by_then_tells_of_its_sessions_unless_that_was_done(
    mcp: Cluster, link: Link, told: bool
):
    owner = await mcp.start(CONFIG)
    await mcp.client.publish_call_event({"call_id": CALL, "kind": "started"})
    await mcp.event("created", worker_id=owner.worker_id)
    await send_again(mcp, link, {headers.LOST: True} if told else {})
    await mcp.until(lambda: mcp.logged("delivery", type=Recipe.type, outcome="restore_not_needed"))
    await mcp.client.publish_call_event({"call_id": CALL, "kind": "ended"})
    await mcp.event("closed", worker_id=owner.worker_id)  # what was told before has come before
    assert [event.id for event in mcp.of("lost")] == ([] if told else ["life-1"])


async def send_again(mcp: Cluster, link: Link, marks: dict[str, bool]) -> None:
    """Publish the recipe of the worker that is gone as a placer does that cannot know who owns the call now."""
    publisher = Publisher()
    publisher.attach(await link.publishing(signed=True))
    recipe = recipe_of(GONE, CALL, at=datetime.now(UTC))
    sent_again = {headers.RESENT: True, headers.LATE: True, headers.ORPHAN_OF: GONE}
    await publisher.publish(recipe.with_headers(sent_again | marks), Names(mcp.prefix).sessions, routing_key(CALL))
