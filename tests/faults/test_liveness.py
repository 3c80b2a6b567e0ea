"""A worker knows whether it can still be given a call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from structlog.testing import capture_logs

from consumer.broker.channel import Channel
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


@dataclass
class Probed:
    """An inbox on a link, and who probes it."""

    link: Link
    channel: Channel
    inbox: str
    publisher: Looking
    restarted: "asyncio.Queue[str]"
    liveness: Liveness


@asynccontextmanager
async def probed(url: str, prefix: str, **options: float) -> AsyncIterator[Probed]:
    """An inbox that is there for twenty seconds at most, and has gone afterwards."""
    link = Link(url, "test")
    await link.open()
    channel = await link.channel()
    queue = inbox(Names(prefix), WorkerId("one"))
    await channel.declare_queue(queue)
    publisher = Looking()
    publisher.attach(await link.publishing(signed=True))
    up = asyncio.Event()
    up.set()
    restarted: asyncio.Queue[str] = asyncio.Queue()
    liveness = Liveness(publisher, up, queue.name, restarted.put_nowait, **options)
    try:
        async with asyncio.timeout(20):
            yield Probed(link, channel, queue.name, publisher, restarted, liveness)
    finally:
        if link.lost.done():
            await link.close()
            link = Link(url, "test")
            await link.open()
            channel = await link.channel()
        await channel.delete_queue(queue.name)
        await link.close()


async def test_a_probe_that_comes_back_is_health_and_one_that_does_not_restarts_the_link(amqp_url, prefix):
    heard: asyncio.Queue[bool] = asyncio.Queue()
    async with probed(amqp_url, prefix) as one:

        def take(delivery) -> None:
            one.liveness.heard(delivery)
            heard.put_nowait(True)

        consumer = await one.channel.consume(one.inbox, take, no_ack=True)
        async with running(one.liveness.run(every=0.05, timeout=0.5)):
            await heard.get()
            assert [await one.publisher.looks.get() for _ in range(20)] == [1] * 20
            assert one.liveness.healthy
            assert heard.empty(), "twenty looks, and not one message"
            await one.channel.cancel(consumer)
            assert "did not come back" in await one.restarted.get()
            while one.liveness.healthy:
                await asyncio.sleep(0)


async def test_a_broker_that_stands_still_is_no_health_long_before_the_link_is_lost(amqp_url, prefix):
    async with proxy_to(amqp_url) as proxy, probed(through(amqp_url, proxy), prefix, answer_within=0.3) as one:
        await one.channel.consume(one.inbox, one.liveness.heard, no_ack=True)
        async with running(one.liveness.run(every=0.05)):
            await one.publisher.looks.get()
            assert one.liveness.healthy
            with capture_logs() as told:
                with standing_still(proxy):
                    while one.liveness.healthy or not told:
                        await asyncio.sleep(0)
                    assert not one.link.lost.done(), "no heartbeat has been missed yet"
                while not one.liveness.healthy:
                    await asyncio.sleep(0)
            assert one.restarted.empty()
            assert not one.link.lost.done()
    assert [(line["event"], line["log_level"]) for line in told] == [
        ("liveness.stalled", "warning"),
        ("liveness.answered", "warning"),
    ]
    assert told[1]["stalled_s"] >= told[0]["waited_s"] == 0.3


async def test_a_link_that_is_lost_while_the_broker_stands_still_is_no_answer(amqp_url, prefix):
    async with proxy_to(amqp_url) as proxy, probed(through(amqp_url, proxy), prefix, answer_within=0.3) as one:
        await one.channel.consume(one.inbox, one.liveness.heard, no_ack=True)
        async with running(one.liveness.run(every=0.05)):
            await one.publisher.looks.get()
            with capture_logs() as told, standing_still(proxy):
                while not told:
                    await asyncio.sleep(0)
                await proxy.disconnect_all()  # whoever waits for an answer knows before the link is given up
                while len([line for line in told if line["event"] == "liveness.unknown"]) < 2:
                    await asyncio.sleep(0)
            assert not one.liveness.healthy
    assert [line["event"] for line in told[:3]] == ["liveness.stalled", "liveness.unknown", "liveness.unknown"]
