"""``python -m scripts.benchmarks.echo URL QUEUE...``: a consumer that sends every body back, until its stdin ends.

The least that anything which answers over AMQP has to do, in the library that the worker uses; a process of its own,
as a worker is one. Prints a line when it consumes.
"""

import asyncio
import sys

import aiormq
import uvloop
from aiormq.abc import DeliveredMessage


async def echo(url: str, queues: list[str]) -> None:
    """Answer what comes, each on the address that it names."""
    connection = await aiormq.connect(url)
    channel = await connection.channel(publisher_confirms=False)
    assert isinstance(channel, aiormq.Channel)

    async def answer(message: DeliveredMessage) -> None:
        properties = message.header.properties
        assert properties.reply_to is not None
        assert message.delivery_tag is not None
        await channel.basic_publish(
            message.body,
            routing_key=properties.reply_to,
            properties=aiormq.spec.Basic.Properties(correlation_id=properties.correlation_id),
            wait=False,
        )
        await channel.basic_ack(message.delivery_tag, wait=False)

    for queue in queues:
        await channel.basic_consume(queue, answer)
    print("consuming", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await connection.close()


if __name__ == "__main__":
    uvloop.run(echo(sys.argv[1], sys.argv[2:]))
