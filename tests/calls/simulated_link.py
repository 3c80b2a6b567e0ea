"""A link to the simulated broker for tests of single parts: real channels and publishers, and no process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from consumer.broker.declare import apply
from consumer.broker.link import Link
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.rpc import RpcClient
from consumer.broker.settling import Settler
from consumer.broker.topology import Names, Queue, cluster_topology
from tests.simulation.broker.client import SimulatedConnection
from tests.simulation.broker.node import Node

BOUND = 20.0
"""Seconds in which what is awaited has come."""


@dataclass
class Heard:
    """Consumes a queue, and acknowledges nothing."""

    deliveries: asyncio.Queue[Delivery] = field(default_factory=asyncio.Queue)

    async def next(self) -> Delivery:
        async with asyncio.timeout(BOUND):
            return await self.deliveries.get()


@dataclass
class SimulatedLink:
    """An open link, and what publishes over it; ``REPLIES`` is consumed by ``rpc_client``."""

    link: Link
    names: Names
    publisher: Publisher
    rpc_client: RpcClient
    settler: Settler
    node: Node

    async def consume(self, queue: str) -> Heard:
        heard = Heard()
        channel = await self.link.channel()
        await channel.declare_queue(Queue(queue, "of this test"), passive=True)
        await channel.consume(queue, heard.deliveries.put_nowait)
        return heard

    async def declare(self, queue: Queue) -> None:
        await (await self.link.channel()).declare_queue(queue)


async def _nothing() -> None:
    """The dead letters of these tests are not taken away."""


@asynccontextmanager
async def simulated_link(*, signs: bool = True) -> AsyncIterator[SimulatedLink]:
    node, names, publisher = Node(), Names(), Publisher(signs=signs)
    connection = cast("Any", partial(SimulatedConnection, node))
    link = Link("amqp://guest@sim/", "test", heartbeat=300, connection=connection)
    await link.open()
    try:
        channel = await link.channel()
        await apply(channel, cluster_topology(names), link=link)
        publisher.attach(await link.publishing(signed=signs))
        rpc_client = RpcClient(publisher)
        replies = Queue("replies-of-this-test", "", exclusive=True)
        await channel.declare_queue(replies)
        await channel.consume(replies.name, rpc_client.receive, no_ack=True)
        rpc_client.attach(replies.name)
        settler = Settler(publisher, names.dead_letters, dead_lettered=lambda _reason: None, restore=_nothing)
        yield SimulatedLink(link, names, publisher, rpc_client, settler, node)
    finally:
        await link.close()


@dataclass
class Settled:
    """A delivery's settlement, of which the first counts, as with a channel's: what became of it."""

    how: list[str] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, *, requeue: bool | None) -> None:
        if not self.how:
            self.how.append({None: "acked", True: "requeued", False: "rejected"}[requeue])
            self.done.set()

    async def wait(self) -> str:
        async with asyncio.timeout(BOUND):
            await self.done.wait()
        (how,) = self.how
        return how


def delivered(
    kind: str | None, body: bytes, *, queue: str, exchange: str = "", key: str = "", user: str | None = None,
    redelivered: bool = False, **properties: Any,
) -> tuple[Delivery, Settled]:  # fmt: skip
    """A delivery as a channel hands it over, and what becomes of it."""
    settled = Settled()
    message = Message(body, type=kind, **properties)
    received_at = asyncio.get_running_loop().time()
    return Delivery(message, queue, exchange, key, redelivered, received_at, settled, user=user), settled
