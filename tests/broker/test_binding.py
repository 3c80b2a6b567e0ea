"""Bindings that come together are made together, and each is there when its ``bind`` returns."""

import asyncio

import pytest

from consumer.broker.errors import BrokerUnavailable
from consumer.broker.message import Message
from consumer.broker.topology import Binding, Names, Queue


async def bound_queue(link, prefix, inbox):
    channel = await link.channel()
    queue = Queue(f"{prefix}.bound", "", exclusive=True)
    await channel.declare_queue(queue)
    await channel.consume(queue.name, inbox, no_ack=True)
    return channel, queue.name


async def test_every_binding_is_there_when_it_has_returned(link, prefix, publisher, inbox):
    channel, queue = await bound_queue(link, prefix, inbox)
    exchange = Names(prefix).sessions

    async def bind_and_publish(key):
        await channel.bind(Binding(exchange, queue, key))
        await publisher.publish(Message(key.encode()), exchange, key)

    keys = [f"key-{number}" for number in range(200)]
    async with asyncio.timeout(30):
        await asyncio.gather(*map(bind_and_publish, keys))
        heard = [(await inbox.next()).message.body.decode() for _ in keys]
    assert sorted(heard) == sorted(keys)


async def test_many_bindings_cost_few_round_trips(link, prefix, inbox, monkeypatch):
    channel, queue = await bound_queue(link, prefix, inbox)
    answered = []
    bind = channel._raw.queue_bind

    async def counted(*given, **more):
        answer = await bind(*given, **more)
        answered.append(answer is not None)

    monkeypatch.setattr(channel._raw, "queue_bind", counted)
    exchange = Names(prefix).sessions
    async with asyncio.timeout(30):
        await asyncio.gather(*(channel.bind(Binding(exchange, queue, f"key-{number}")) for number in range(200)))
    assert len(answered) == 200
    assert 1 <= sum(answered) <= 3


async def test_who_gives_up_takes_nobody_along(link, prefix, publisher, inbox):
    channel, queue = await bound_queue(link, prefix, inbox)
    exchange = Names(prefix).sessions
    bindings = [asyncio.create_task(channel.bind(Binding(exchange, queue, f"key-{number}"))) for number in range(20)]
    await asyncio.sleep(0)
    for one in bindings[::3]:
        one.cancel()
    async with asyncio.timeout(30):
        await asyncio.gather(*(one for one in bindings if not one.cancelling()))
        for number in range(20):
            if number % 3:
                await publisher.publish(Message(b""), exchange, f"key-{number}")
                await inbox.next()
    await asyncio.gather(*bindings, return_exceptions=True)


async def test_when_one_cannot_be_made_none_is_said_to_be(link, prefix, inbox):
    _, queue = await bound_queue(link, prefix, inbox)
    exchange = Names(prefix).sessions
    async with link.scratch() as scratch, asyncio.timeout(30):
        wanted = [Binding(exchange, queue, "one"), Binding(f"{prefix}.nowhere", queue, "two"), Binding(exchange, queue)]
        made = await asyncio.gather(*map(scratch.bind, wanted), return_exceptions=True)
    assert any(isinstance(one, BrokerUnavailable) for one in made)
    # The first may have been on its own way already; what came with the impossible one, and behind it, was not made.
    assert all(isinstance(one, BrokerUnavailable) for one in made[1:])
    with pytest.raises(BrokerUnavailable):
        await scratch.bind(wanted[0])
