"""A worker knows whether it can still be given a call."""

import asyncio

from consumer.broker.link import Link
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names, inbox
from consumer.calls.cluster.inbox_probe import Liveness
from schemas.ids import WorkerId
from tests.broker.conftest import running


async def test_a_probe_that_comes_back_is_health_and_one_that_does_not_restarts_the_link(amqp_url, prefix):
    link = Link(amqp_url, "test")
    await link.open()
    channel = await link.channel()
    queue = inbox(Names(prefix), WorkerId("one"))
    await channel.declare_queue(queue)
    publisher = Publisher()
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
            async with running(liveness.run(every=0.05, patience=0.5)):
                await probed.get()
                await probed.get()  # the second is sent when the first has been judged
                assert liveness.healthy
                await channel.cancel(consumer)
                assert "did not come back" in await restarted.get()
                while liveness.healthy:
                    await asyncio.sleep(0)
    finally:
        await channel.delete_queue(queue.name)
        await link.close()
