"""A worker knows whether it can still be given a call."""

import asyncio

from consumer.broker.link import Link
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names, inbox
from consumer.calls.cluster.inbox_probe import Liveness
from schemas.ids import WorkerId
from tests.broker.conftest import running
from tests.proxy import proxy_to, standing_still, through


class Looking(Publisher):
    """A publisher that says how often it was asked who consumes."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: asyncio.Queue[int] = asyncio.Queue()

    async def consumers_of(self, queue: str) -> int:
        found = await super().consumers_of(queue)
        self.looks.put_nowait(found)
        return found


async def test_a_probe_that_comes_back_is_health_and_one_that_does_not_restarts_the_link(amqp_url, prefix):
    link = Link(amqp_url, "test")
    await link.open()
    channel = await link.channel()
    queue = inbox(Names(prefix), WorkerId("one"))
    await channel.declare_queue(queue)
    publisher = Looking()
    publisher.attach(await link.publishing(signed=True))
    up = asyncio.Event()
    up.set()
    restarted: asyncio.Queue[str] = asyncio.Queue()
    probed: asyncio.Queue[bool] = asyncio.Queue()
    liveness = Liveness(publisher, up, queue.name, restarted.put_nowait)

    def take(delivery) -> None:
        liveness.heard(delivery)
        probed.put_nowait(True)

    try:
        async with asyncio.timeout(20):
            consumer = await channel.consume(queue.name, take, no_ack=True)
            async with running(liveness.run(every=0.05, timeout=0.5)):
                await probed.get()
                assert [await publisher.looks.get() for _ in range(20)] == [1] * 20
                assert liveness.healthy
                assert probed.empty(), "twenty looks, and not one message"
                await channel.cancel(consumer)
                assert "did not come back" in await restarted.get()
                while liveness.healthy:
                    await asyncio.sleep(0)
    finally:
        await channel.delete_queue(queue.name)
        await link.close()


async def test_a_broker_that_stands_still_is_no_health_long_before_the_link_is_lost(amqp_url, prefix):
    async with proxy_to(amqp_url) as proxy:
        link = Link(through(amqp_url, proxy), "test")
        await link.open()
        channel = await link.channel()
        queue = inbox(Names(prefix), WorkerId("one"))
        await channel.declare_queue(queue)
        publisher = Looking()
        publisher.attach(await link.publishing(signed=True))
        up = asyncio.Event()
        up.set()
        restarted: asyncio.Queue[str] = asyncio.Queue()
        liveness = Liveness(publisher, up, queue.name, restarted.put_nowait, answer_within=0.3)
        try:
            async with asyncio.timeout(20):
                await channel.consume(queue.name, liveness.heard, no_ack=True)
                async with running(liveness.run(every=0.05)):
                    await publisher.looks.get()
                    assert liveness.healthy
                    with standing_still(proxy):
                        while liveness.healthy:
                            await asyncio.sleep(0)
                        assert not link.lost.done(), "no heartbeat has been missed yet"
                    while not liveness.healthy:
                        await asyncio.sleep(0)
                    assert restarted.empty()
                    assert not link.lost.done()
        finally:
            await channel.delete_queue(queue.name)
            await link.close()
