"""Playing operations on the simulated broker and on a real one, and comparing what comes of each."""

import asyncio
import os
import secrets
from collections import Counter
from functools import partial
from typing import Any, cast

import aiormq
from aiomisc.pytest import TCPProxy
from yarl import URL

from consumer.broker.link import Link
from infra.rabbitmq_node import PrivateBroker
from tests.proxy import through
from tests.simulation.broker.client import SimulatedConnection
from tests.simulation.broker.node import Node
from tests.simulation.broker.stepped import SteppedTime
from tests.simulation.broker.stored import Published
from tests.simulation.sides import LINKS, Side

NEVER = 60.0
"""What expires after this time (s) or later does not expire in a run."""
BOUND = 20.0
"""How long (s) the real broker may take until the same is seen on both."""
STEP = 0.01
ROUNDS = 6
"""How often a message that expires can come to a queue where it expires again."""


class Different(AssertionError):
    """The real broker and the simulated one do not do the same."""


class Unordered(Exception):
    """RabbitMQ may put messages into any order.

    Dead letters of several queues come to one at once, or several consumers of a queue are lost at once. Or it may give
    messages twice.
    """


async def version_of(url: str) -> tuple[int, ...]:
    """The version of a RabbitMQ, as it says itself."""
    connection = await aiormq.connect(url)
    try:
        told = connection.server_properties["version"]
    finally:
        await connection.close()
    text = told.decode() if isinstance(told, bytes) else str(told)
    return tuple(int(part) for part in text.split(".")[:3])


class Comparison:
    """The same operations on both brokers; the times to live of their messages are ``ttl`` milliseconds.

    Each is waited out on the real broker before anything is compared, and passes on the simulated one meanwhile. So
    nothing is left that could expire during the next operation.
    """

    def __init__(
        self,
        url: str,
        version: tuple[int, ...],
        ttl: int,
        counted: Counter[str],
        broker: PrivateBroker | None = None,
    ) -> None:
        self._url = URL(url)
        self._broker = broker
        self.ttl = ttl
        self.counted = counted
        self._clock = SteppedTime()
        self.node = Node(self._clock, version=version)
        self.node.on_publish = self._heed
        self._came_from: dict[str, set[str]] = {}
        self._gave_itself = False
        """Whether a dead letter has come to the queue that gave it up: RabbitMQ publishes it again after a restart."""
        self._heartbeat = 300  # between two operations the loop does not run: no link may think that it stood still

    async def begin(self) -> None:
        self.proxy = TCPProxy(str(self._url.host), int(self._url.port or 5672))
        await self.proxy.start()
        prefix = f"sim{os.getpid()}{secrets.token_hex(3)}"
        self.real = Side(self._real_link, prefix, self.ttl)
        self.simulated = Side(self._simulated_link, prefix, self.ttl)
        self.sides = (self.real, self.simulated)
        for side in self.sides:
            await side.begin()

    def _real_link(self, name: str) -> Link:
        url = through(str(self._url), self.proxy) if name.endswith(str(LINKS[-1])) else str(self._url)
        return Link(url, name, heartbeat=self._heartbeat)

    def _simulated_link(self, name: str) -> Link:
        connection = cast("Any", partial(SimulatedConnection, self.node))
        return Link("amqp://guest@sim/", name, heartbeat=self._heartbeat, connection=connection)

    async def end(self) -> None:
        for side in self.sides:
            await side.end()
        await self.proxy.close()

    async def play(self, method: str, *args: Any) -> None:
        """Do the same on both, and compare what they say and what is seen then.

        Raises:
            Different: it is not the same.
            Unordered: it need not be the same.
        """
        self._came_from.clear()
        self.counted[method] += 1
        do = getattr(self, f"_{method}", None) or partial(self._on_each, method)
        one, other = await do(*args)
        if one != other:
            raise Different(f"the real one says {one}, the simulated one {other}")
        await self._compare()
        for number in self.real.lost():
            self.counted["links lost"] += 1
            for side in self.sides:
                await side.close(number)
            await self._compare()

    async def _on_each(self, method: str, *args: Any) -> tuple[str, str]:
        one, other = [await getattr(side, method)(*args) for side in self.sides]
        return one, other

    async def _cut(self, number: int) -> tuple[str, str]:
        """Lose the last link without a word."""
        await self.proxy.disconnect_all()
        for client in list(self.node.clients):
            if client.name.startswith(f"conformance {number}"):
                client.cut(client_after=0.0, server_after=0.0)
        return "cut", "cut"

    def _heed(self, message: Published, queues: list[str]) -> None:
        died = message.headers.get("x-death")
        for queue in queues:
            source = died[0]["queue"] if died else ""
            self._came_from.setdefault(queue, set()).add(source)
            self._gave_itself |= source == queue

    async def _restart(self) -> tuple[str, str]:
        """Stop the node in good order, and start it again."""
        assert self._broker is not None
        several_hold = any(sum(one.held > 0 for one in queue.consumers) > 1 for queue in self.node.queues.values())
        if several_hold or self._gave_itself:
            raise Unordered
        self.node.stop()
        self._broker.restart()
        self.node.start()
        for side in self.sides:
            await side.look()
        return "restarted", "restarted"

    async def _alarm(self, on: bool) -> tuple[str, str]:
        """Have a memory alarm, or have none any more."""
        assert self._broker is not None
        self._broker.rabbitmqctl("set_vm_memory_high_watermark", "0.0000001" if on else "0.6")
        self.node.set_alarm(on=on)
        return "set", "set"

    async def _compare(self) -> None:
        await self._wait_out()
        if any(len(sources - {""}) > 1 for sources in self._came_from.values()):
            raise Unordered
        loop = asyncio.get_running_loop()
        until = loop.time() + BOUND
        while (differing := await self._differing()) and loop.time() < until:
            await asyncio.sleep(STEP)
        if differing:
            raise Different("\n".join(differing))

    async def _differing(self) -> list[str]:
        while not self._clock.is_still:
            await asyncio.sleep(0)
        real, simulated = await self.real.seen(), await self.simulated.seen()
        self.counted["looks"] += 1
        return [
            f"{name}:\n  real      {told}\n  simulated {other}"
            for name in dict.fromkeys([*real, *simulated])
            if (told := real.get(name)) != (other := simulated.get(name))
        ]

    async def _wait_out(self) -> None:
        """Wait until no message is left that is still to expire."""
        for _ in range(ROUNDS):
            while not self._clock.is_still:
                await asyncio.sleep(0)
            now = self._clock.now()
            expire = [
                one.expires_at
                for queue in self.node.queues.values()
                for line in (queue.ready, queue.returned, queue.held)
                for one in line
                if now < one.expires_at < now + NEVER
            ]
            if not expire:
                return
            self.counted["times waited out"] += 1
            await asyncio.sleep(self.ttl / 1000 + STEP)
            self._clock.advance(max(expire))
        raise Different("messages expire again and again")
