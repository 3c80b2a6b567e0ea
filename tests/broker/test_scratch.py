"""A channel that may fail, and what its end may cost."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from consumer.broker.declare import consumers_of, exists
from consumer.broker.errors import BrokerUnavailable
from consumer.broker.lent_channels import MOST_LENT
from consumer.broker.link import Link
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names, Queue
from schemas.ids import WorkerId
from tests.calls.simulated_link import simulated_link
from tests.proxy import proxy_to, standing_still, through


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13])
async def test_a_scratch_channel_whose_closing_is_cancelled_costs_no_connection(amqp_url: str, prefix: str, turns: int):
    link = Link(amqp_url, "test")
    await link.open()
    try:
        for number in range(20):
            ends = asyncio.Event()

            async def use(name: str, ends: asyncio.Event) -> None:
                async with link.scratch() as channel:
                    await channel.declare_queue(Queue(name, "", exclusive=True))
                    ends.set()

            using = asyncio.create_task(use(f"{prefix}.{number}", ends))
            async with asyncio.timeout(30):
                await ends.wait()
            for _ in range(turns):  # of the loop: how far its closing has come
                await asyncio.sleep(0)
            using.cancel()
            await asyncio.gather(using, return_exceptions=True)
        async with link.scratch() as channel:  # answered behind all of them
            await channel.declare_queue(Queue(f"{prefix}.last", "", exclusive=True))
        assert not link.lost.done(), link.lost.result()
    finally:
        await link.close()


async def test_who_closes_a_channel_is_not_cancelled_with_the_link(amqp_url: str):
    async with proxy_to(amqp_url) as proxy:
        link = Link(through(amqp_url, proxy), "test")
        await link.open()
        async with asyncio.timeout(30), AsyncExitStack() as silence:
            async with link.scratch():
                silence.enter_context(standing_still(proxy))
                closing = asyncio.create_task(link.close())
            await closing


async def test_who_opens_a_channel_is_not_cancelled_with_the_link():
    async with simulated_link() as there:
        opening = asyncio.create_task(there.link.channel())
        await asyncio.sleep(0)
        for connection in list(there.node.clients):
            connection.lost("cut")
        await asyncio.sleep(0)  # what has not opened is to be closed now
        await there.link.close()
        with pytest.raises(BrokerUnavailable, match="did not open a channel"):
            await opening


async def test_who_asks_often_asks_on_one_channel(amqp_url: str, prefix: str):
    link = Link(amqp_url, "ask")
    try:
        await link.open()
        there = Queue(f"{prefix}.ask", "", exclusive=True)
        async with link.scratch() as channel:
            await channel.declare_queue(there)
        async with link.asking() as first:
            pass
        for _ in range(3):
            assert await consumers_of(link, there.name) == 0
        async with link.asking() as kept, link.asking() as beside:
            assert kept is first
            assert beside is not first
        assert first.is_closed is not beside.is_closed  # one of them is enough
        assert not await exists(link, Queue(f"{prefix}.missing", ""))  # the broker closes the channel for it
        assert first.is_closed
        assert beside.is_closed
        async with link.asking() as another:
            assert await another.consumers_of(there.name) == 0
        assert not link.lost.done()
    finally:
        await link.close()


async def test_a_publisher_with_lent_channels_asks_on_one_of_them(link: Link, names: Names):
    refusals = list[str]()
    publisher = Publisher(refused=refusals.append)
    publisher.attach(await link.publishing(refused=publisher.refused))
    assert await publisher.consumers_of(names.unowned) == 0
    await (await link.channel()).consume(names.unowned, lambda _: None)
    for _ in range(2 * MOST_LENT):  # more than there are channels: a refusal gives its own back
        with pytest.raises(BrokerUnavailable, match=r"NOT_FOUND"):
            await publisher.consumers_of(names.inbox(WorkerId("nobody")))
    assert await publisher.consumers_of(names.unowned) == 1
    assert refusals == []
    assert not link.lost.done()


async def test_a_publisher_asks_whether_its_own_connection_lives(link: Link):
    publisher = Publisher()
    with pytest.raises(BrokerUnavailable):
        await publisher.proven()
    publisher.attach(await link.publishing())
    await publisher.proven()
    await link.close()
    with pytest.raises(BrokerUnavailable, match="did not answer"):
        await publisher.proven()
