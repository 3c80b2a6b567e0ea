"""What ours is compared with: the official SDK's client alone, and the barest round trip over the same broker."""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
import psutil
from aiormq.abc import DeliveredMessage
from mcp import Client, StdioServerParameters

START_TIMEOUT = 30.0


@asynccontextmanager
async def sdk_client(command: list[str]) -> AsyncIterator[Client]:
    """The official client on a server of its own."""
    async with Client(StdioServerParameters(command=command[0], args=command[1:])) as client:
        yield client


async def sdk_start(command: list[str]) -> float:
    """How long (s) the official client alone takes until it has a server's tools; ending it does not count."""
    began = time.perf_counter()
    async with asyncio.timeout(START_TIMEOUT), sdk_client(command) as client:
        await client.list_tools()
        return time.perf_counter() - began


class Echo:
    """Asks a consumer that sends back what it gets, by direct reply-to."""

    def __init__(self, channel: aiormq.Channel, queue: str, process: psutil.Process) -> None:
        self._channel = channel
        self._queue = queue
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._last = 0
        self.process = process

    async def open(self) -> None:
        """Listen for answers."""
        await self._channel.basic_consume("amq.rabbitmq.reply-to", self._answered, no_ack=True)

    async def _answered(self, message: DeliveredMessage) -> None:
        self._waiting.pop(message.header.properties.correlation_id or "").set_result(message.body)

    async def ask(self, body: bytes) -> bytes:
        """One round trip."""
        self._last += 1
        number = str(self._last)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._channel.basic_publish(
            body,
            routing_key=self._queue,
            properties=aiormq.spec.Basic.Properties(
                correlation_id=number, reply_to="amq.rabbitmq.reply-to", delivery_mode=1
            ),
            wait=False,
        )
        async with asyncio.timeout(START_TIMEOUT):
            return bytes(await answer)


@asynccontextmanager
async def amqp_echo() -> AsyncIterator[dict[str, Echo]]:
    """An echo through a classic queue and one through a quorum queue, by the kind of queue."""
    url = os.environ["AMQP_URL"]
    connection = await aiormq.connect(url)
    names = {kind: f"bench-echo-{kind}-{secrets.token_hex(4)}" for kind in ("classic", "quorum")}
    try:
        control = await connection.channel()
        for kind, name in names.items():
            # No auto-delete, which quorum queues do not know: both are deleted below.
            await control.queue_declare(name, durable=True, arguments={"x-queue-type": kind})
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scripts.benchmarks.echo", url, *names.values()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await process.stdout.readline()
            made = {}
            for kind, name in names.items():
                channel = await connection.channel(publisher_confirms=False)
                assert isinstance(channel, aiormq.Channel)
                made[kind] = Echo(channel, name, psutil.Process(process.pid))
                await made[kind].open()
            yield made
        finally:
            process.stdin.close()
            try:
                async with asyncio.timeout(5):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            for name in names.values():
                await control.queue_delete(name)
    finally:
        await connection.close()
