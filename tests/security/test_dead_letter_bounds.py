"""Whoever may publish can fill the dead-letter queue, and no more: the oldest make room, and the workers go on."""

import asyncio
import dataclasses

import pytest

from consumer.broker.dead_letter import Filter
from consumer.broker.dead_letter_queue import DeadLetterQueue
from consumer.broker.declare import apply, verify
from consumer.broker.link import Link
from consumer.broker.topology import Names, cluster_topology, dead_letter_topology
from tests.harness import Cluster, config


async def test_the_dead_letter_queue_holds_so_many_bytes_and_the_newest_messages(mcp: Cluster):
    await mcp.start(config(worker={"max_dead_letter_bytes": "1M"}))
    await mcp.client.create("c", "echo")
    count = 60
    for number in range(count):
        await mcp.client.publish_call_event(f"no event {number} ".encode() + b"x" * 50_000)
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="dead_lettered")) == count)
    link = Link(mcp.url, "test")
    await link.open()
    try:
        letters = await DeadLetterQueue(link, mcp.client.names).fitting(Filter())
    finally:
        await link.close()
    assert 10 < len(letters) < 25
    assert sum(one.size for one in letters) <= 1 << 20
    assert (await mcp.client.call_tool("c", "echo", {"text": "lives"})).text == "lives"


@pytest.fixture
async def link(amqp_url: str):
    made = Link(amqp_url, "test")
    await made.open()
    yield made
    await made.close()


async def test_a_dead_letter_queue_of_before_is_used_as_it_is(link: Link, prefix: str, mcp: Cluster):
    names = Names(mcp.prefix)
    before = dataclasses.replace(
        dead_letter_topology(names).queues[0],
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 2**31 - 1,
            "x-overflow": "reject-publish",
            "x-consumer-disconnected-timeout": 10_000,
            "x-dead-letter-exchange": names.dead_letters,
            "x-dead-letter-strategy": "at-least-once",
        },
    )
    channel = await link.channel()
    await channel.declare_queue(before)
    worker = await mcp.start()
    assert (await worker.logged("topology.differs"))["queue"] == names.dead_letters
    await mcp.client.publish_call_event(b"no event")
    await mcp.until(lambda: mcp.logged("delivery", outcome="dead_lettered"))
    async with asyncio.timeout(45):
        while not await DeadLetterQueue(link, names).fitting(Filter()):
            await asyncio.sleep(0.05)
    (differing,) = [one for one in await verify(link, cluster_topology(names)) if one.state != "ok"]
    assert differing.name == names.dead_letters
    await channel.delete_queue(names.dead_letters)
    await apply(channel, cluster_topology(names), link=link)
    assert {one.state for one in await verify(link, cluster_topology(names))} == {"ok"}
