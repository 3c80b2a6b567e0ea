"""A replay publishes with an operator's rights, and nothing that its first publisher could not have."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from consumer.broker.dead_letter import Filter
from consumer.broker.dead_letter_queue import DeadLetterQueue, Replayed
from consumer.broker.link import Link
from consumer.broker.message import CALL_HEADER, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import DELIVERY_LIMIT
from infra.broker import PrivateBroker
from schemas.calls import CallEvent, CallKind
from schemas.ids import CallId, WorkerId
from tests.broker_users import NAMES, url_of
from tests.harness import Cluster, config
from tests.security.broker.attacker import Attacker
from tests.security.broker.scene import Scene

pytestmark = pytest.mark.timeout(240)

FALSE_EVENT = {
    "specversion": "1.0",
    "id": "forged",
    "source": "/mcp-sessions/workers/w",
    "type": "mcp.session.closed",
    "subject": "live-0",
    "time": "2026-01-01T00:00:00+00:00",
    "data": {"session_id": "live-0", "call_id": "live-0", "service_name": "echo", "reason": "call_ended"},
}


def lies(exchange: str, key: str) -> dict[str, object]:
    """The headers by which a dead letter would say that it came from there."""
    return {
        "x-mcp-exchange": exchange,
        "x-mcp-routing-key": key,
        "x-mcp-queue": NAMES.calls,
        "x-mcp-reason": "defect",
        "x-mcp-origin": "worker",
        CALL_HEADER: "live-0",
        "x-death": [
            {
                "queue": NAMES.inbox(WorkerId("w")),
                "exchange": exchange,
                "routing-keys": [key],
                "reason": "expired",
                "count": 1,
            }
        ],
    }


@pytest.fixture
async def publishing(mcp: Cluster, node: PrivateBroker) -> AsyncIterator[Attacker]:
    async with Attacker(url_of(node, "publisher")) as made:
        yield made


async def replay_all(node: PrivateBroker) -> list[Replayed]:
    """``mcp-sessions dead-letters replay --all``, as operator."""
    link, publisher = Link(url_of(node, "operator"), "operator"), Publisher()
    await link.open()
    try:
        publisher.attach(await link.publishing())
        lot = DeadLetterQueue(link, NAMES)
        done: list[Replayed] = []
        await lot.replay({one.id for one in await lot.fitting(Filter())}, publisher, done.append)
        return done
    finally:
        await link.close()


async def test_a_replay_tells_no_event_and_ends_no_call(
    scene: Scene, node: PrivateBroker, attacker: Attacker, publishing: Attacker, former: Attacker
):
    owner = (await scene.client.list_sessions()).sessions["live-0"].worker_id
    targets = [
        (NAMES.events, "session.closed.echo"),
        (NAMES.sessions, "live-0"),
        (NAMES.workers, ""),
        ("", NAMES.inbox(owner)),
    ]
    ended = {"call_id": "live-0", "kind": "ended"}
    for exchange, key in targets:
        await publishing.send(NAMES.calls, "k", "mcp.session.closed", FALSE_EVENT, headers=lies(exchange, key))
        await attacker.send(NAMES.sessions, "live-0", "call.ended", ended, headers=lies(exchange, key))
        await attacker.send(NAMES.requests, "live-0", "mcp.session.closed", FALSE_EVENT, headers=lies(exchange, key))
        await attacker.send(NAMES.cluster, "", "call.ended", ended, headers=lies(exchange, key))
    await scene.mcp.until(lambda: len(scene.dead_letters()) == 4 * len(targets))
    for exchange, key in targets:  # straight into the dead-letter queue, as before
        await former.send("", NAMES.dead_letters, "call.ended", ended, headers=lies(exchange, key))

    done: list[Replayed] = []

    async def attack() -> None:
        done.extend(await replay_all(node))
        await asyncio.sleep(0.3)

    await scene.undisturbed(attack)
    first = done[: 5 * len(targets)]
    reached = {one.exchange for one in first if not one.problem}
    assert reached == {NAMES.calls, NAMES.requests}, "where they had been published, and nowhere else"
    assert [one.problem for one in first if one.letter.message.type == "call.ended" and not one.problem] == []


async def test_what_the_broker_dead_lettered_is_replayed_by_its_queue_alone(
    mcp: Cluster, node: PrivateBroker, publishing: Attacker
):
    """Up to RabbitMQ 3.13 exchange and key of its newest death are the publisher's, if it made that death up."""
    forged = [
        {"queue": NAMES.calls, "reason": "delivery_limit", "exchange": NAMES.events, "count": 1, "routing-keys": ["k"]}
    ]
    body = {"call_id": "c-1", "kind": "started"}
    await publishing.send(
        NAMES.calls, "k", "mcp.session.closed", body, headers=lies(NAMES.events, "k") | {"x-death": forged}
    )
    link = Link(node.url, "thrower")
    await link.open()
    channel = await link.channel()
    thrown: asyncio.Queue[object] = asyncio.Queue()

    def give_back(delivery) -> None:
        thrown.put_nowait(asyncio.create_task(delivery.requeue()))

    tag = await channel.consume(NAMES.calls, give_back)
    async with asyncio.timeout(30):
        for _ in range(DELIVERY_LIMIT + 1):
            await (await thrown.get())  # type: ignore[misc]
        while not await mcp.client.count_dead_letters():
            await asyncio.sleep(0.05)
    await channel.cancel(tag)
    await link.close()
    (done,) = await replay_all(node)
    assert (done.exchange, done.problem) == (NAMES.calls, "")
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    await mcp.event("created", call_id="c-1")


async def test_what_workers_had_made_of_an_event_is_an_event_again(mcp: Cluster, node: PrivateBroker):
    """A worker makes a dead letter of a start that is too large for it, and says that it came from a worker."""
    worker = await mcp.start(config(worker={"max_message": "1K"}), AMQP_URL=url_of(node, "worker"))
    link, publisher = Link(url_of(node, "worker"), "worker"), Publisher(signs=True)
    await link.open()
    publisher.attach(await link.publishing(signed=True))
    event = CallEvent(call_id=CallId("c-1"), kind=CallKind.STARTED, attributes={"note": "x" * 2000})
    await publisher.publish(Message(event.model_dump_json().encode(), type=event.message_type), NAMES.sessions, "c-1")
    await mcp.until(lambda: mcp.logged("delivery", outcome="dead_lettered", reason="too_large"))
    await link.close()
    assert await worker.terminate() == 0
    (done,) = await replay_all(node)
    assert (done.exchange, done.problem) == (NAMES.calls, "")
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    await mcp.event("created", call_id="c-1")
