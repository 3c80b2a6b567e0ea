"""Whoever may publish can fill the parking lot, and no more: the oldest make room, and the workers go on."""

import asyncio
import dataclasses

import pytest

from consumer.broker.declare import apply, verify
from consumer.broker.link import Link
from consumer.broker.parked import Filter
from consumer.broker.parking import ParkingLot
from consumer.broker.topology import Names, cluster, parking_lot
from tests.harness import Cluster, config


async def test_the_parking_lot_holds_so_many_bytes_and_the_newest_messages(mcp: Cluster):
    await mcp.start(config(worker={"max_dead": "1M"}))
    await mcp.client.create("c", "echo")
    count = 60
    for number in range(count):
        await mcp.client.publish_call_event(f"no event {number} ".encode() + b"x" * 50_000)
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="parked")) == count)
    link = Link(mcp.url, "test")
    await link.open()
    try:
        parked = await ParkingLot(link, mcp.client.names).fitting(Filter())
    finally:
        await link.close()
    assert 10 < len(parked) < 25
    assert sum(one.size for one in parked) <= 1 << 20
    assert (await mcp.client.call_tool("c", "echo", {"text": "lives"})).text == "lives"


@pytest.fixture
async def link(amqp_url: str):
    made = Link(amqp_url, "test")
    await made.open()
    yield made
    await made.close()


async def test_a_parking_lot_of_before_is_used_as_it_is(link: Link, prefix: str, mcp: Cluster):
    names = Names(mcp.prefix)
    before = dataclasses.replace(
        parking_lot(names).queues[0],
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 2**31 - 1,
            "x-overflow": "reject-publish",
            "x-consumer-disconnected-timeout": 10_000,
            "x-dead-letter-exchange": names.dead,
            "x-dead-letter-strategy": "at-least-once",
        },
    )
    channel = await link.channel()
    await channel.declare_queue(before)
    worker = await mcp.start()
    assert (await worker.logged("topology.differs"))["queue"] == names.dead
    await mcp.client.publish_call_event(b"no event")
    await mcp.until(lambda: mcp.logged("delivery", outcome="parked"))
    async with asyncio.timeout(10):
        while not await ParkingLot(link, names).fitting(Filter()):
            await asyncio.sleep(0.05)
    (differing,) = [one for one in await verify(link, cluster(names)) if one.state != "ok"]
    assert differing.name == names.dead
    await channel.delete_queue(names.dead)
    await apply(channel, cluster(names), link=link)
    assert {one.state for one in await verify(link, cluster(names))} == {"ok"}
