"""The topology: what is declared, on a real broker."""

import pytest

from consumer.broker.declare import apply, verify
from consumer.broker.link import Link
from consumer.broker.topology import CallExchange, Names, Queue, cluster_topology, inbox
from schemas.ids import WorkerId
from tests.harness import remove_everything


@pytest.fixture
async def link(amqp_url, prefix):
    opened = Link(amqp_url, "test")
    await opened.open()
    yield opened
    await opened.close()
    await remove_everything(amqp_url, prefix, [])


async def test_applying_twice_is_the_same_as_applying_once(link, prefix):
    topology = cluster_topology(Names(prefix), call_exchanges=[CallExchange(f"{prefix}.TAP.Events")])
    channel = await link.channel()
    await apply(channel, topology, link=link)
    await apply(channel, topology, link=link)
    assert {finding.state for finding in await verify(link, topology)} == {"ok"}
    await channel.delete_exchange(f"{prefix}.TAP.Events")


async def test_verify_names_what_is_missing_and_creates_nothing(link, prefix):
    topology = cluster_topology(Names(prefix))
    for _ in range(2):
        findings = await verify(link, topology)
        assert {finding.state for finding in findings} == {"missing"}
        assert len(findings) == len(topology.exchanges) + len(topology.queues)


async def test_verify_tells_a_queue_that_differs(link, prefix):
    names = Names(prefix)
    channel = await link.channel()
    await apply(channel, cluster_topology(names, grace=5), link=link)
    (differing,) = [one for one in await verify(link, cluster_topology(names, grace=6)) if one.state != "ok"]
    assert (differing.name, differing.state) == (names.orphans, "differs")
    assert "x-message-ttl" in differing.detail


def test_every_quorum_queue_says_what_its_defaults_would_not():
    names = Names()
    queues = [*cluster_topology(names).queues, inbox(names, WorkerId("w"))]
    for queue in queues:
        assert queue.arguments["x-queue-type"] == "quorum"
        assert queue.arguments["x-delivery-limit"] > 0
        assert queue.arguments["x-overflow"] == ("drop-head" if queue.name == names.dead_letters else "reject-publish")
        assert queue.arguments["x-consumer-disconnected-timeout"] == 10_000
        if queue.name != names.queries:
            assert queue.arguments["x-dead-letter-exchange"]
            strategy = "at-most-once" if queue.name == names.dead_letters else "at-least-once"
            assert queue.arguments["x-dead-letter-strategy"] == strategy


def test_names_are_those_of_the_contract():
    names = Names()
    assert names.inbox(WorkerId("w-1")) == "mcp.inbox.w-1"
    assert names.worker_of_inbox("mcp.inbox.w-1") == "w-1"
    assert names.worker_of_inbox("mcp.unowned") is None
    assert names.requests_of(WorkerId("w-1"), "a1") == "mcp.requests.w-1.a1"
    assert Queue("q", "why").kind == "classic"


async def test_taking_a_binding_from_a_queue_that_is_gone_is_harmless(link, prefix):
    from consumer.broker.topology import Binding

    channel = await link.channel()
    await apply(channel, cluster_topology(Names(prefix)), link=link)
    await channel.unbind(Binding(f"{prefix}.sessions", f"{prefix}.inbox.nobody", "c-1"))
    await channel.unbind(Binding(f"{prefix}.sessions", f"{prefix}.inbox.nobody", "c-1"))


async def test_a_platform_finds_its_exchange_as_it_declares_it_itself(link, prefix):
    """Kazoo's are not durable, and a worker may be there first."""
    import aio_pika

    name = f"{prefix}.callevt"
    topology = cluster_topology(Names(prefix), call_exchanges=[CallExchange(name, durable=False)])
    await apply(await link.channel(), topology, link=link)
    connection = await aio_pika.connect(link._url)
    async with connection:
        channel = await connection.channel()
        callevt = await channel.declare_exchange(name, "topic", durable=False)
        await callevt.delete()


async def test_a_platforms_own_exchange_is_taken_as_it_is(link, prefix):
    """Kazoo's are not durable."""
    import aio_pika

    connection = await aio_pika.connect(link._url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_exchange(f"{prefix}.callevt", "topic", durable=False, auto_delete=True)
        topology = cluster_topology(Names(prefix), call_exchanges=[CallExchange(f"{prefix}.callevt")])
        await apply(await link.channel(), topology, link=link)
        assert {finding.state for finding in await verify(link, topology)} == {"ok"}
