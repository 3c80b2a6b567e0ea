import asyncio
from contextlib import asynccontextmanager

import pytest

from consumer.broker.declare import apply
from consumer.broker.link import Link
from consumer.broker.publisher import Publisher
from consumer.broker.settling import Settler
from consumer.broker.topology import Names, cluster_topology
from tests.harness import remove_everything


@pytest.fixture
def names(prefix):
    return Names(prefix)


@pytest.fixture
async def link(amqp_url, prefix):
    """A link on a broker where the topology of the prefix is declared."""
    opened = Link(amqp_url, "test")
    await opened.open()
    await apply(await opened.channel(), cluster_topology(Names(prefix)), link=opened)
    yield opened
    await opened.close()
    await remove_everything(amqp_url, prefix, [])


@pytest.fixture
async def publisher(link):
    made = Publisher()
    made.attach(await link.publishing())
    return made


@pytest.fixture
def inbox():
    """A handler that keeps what comes, and lets a test wait for it."""
    return Kept()


class Kept(asyncio.Queue):
    def __call__(self, delivery):
        self.put_nowait(delivery)

    async def next(self):
        async with asyncio.timeout(45):
            return await self.get()


@asynccontextmanager
async def running(coroutine):
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def settler_of(publisher, dead_exchange):
    """A settler whose dead-letter queue is never missing, and that nobody counts for."""

    async def restore():
        raise AssertionError("the dead-letter queue is there")

    return Settler(publisher, dead_exchange, dead_lettered=lambda _reason: None, restore=restore)
