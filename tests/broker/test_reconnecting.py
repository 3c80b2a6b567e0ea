"""Links are lost, and come back; what must be published is published, in order."""

import asyncio
import contextlib
import gc
import time

import pytest
from structlog.testing import capture_logs

from consumer.broker.declare import apply
from consumer.broker.errors import BrokerError, BrokerUnavailable, BrokerUnreachable
from consumer.broker.link import Link
from consumer.broker.message import MAX_BODY, Message
from consumer.broker.outbox import Outbox
from consumer.broker.publisher import Publisher
from consumer.broker.supervisor import Supervisor
from consumer.broker.topology import Binding, Names, Queue, cluster_topology
from consumer.client import CannotConnect, SessionClient
from infra.loopback import LOOPBACK, free_port
from tests.broker.conftest import Kept, running
from tests.calls.simulated_link import BOUND, simulated_link
from tests.proxy import proxy_to, through


@pytest.fixture
async def proxy(amqp_url):
    async with proxy_to(amqp_url) as made:
        yield made


async def nothing():
    pass


async def test_the_outbox_delivers_everything_in_order_across_cut_connections(amqp_url, prefix, proxy, link):
    names = Names(prefix)
    kept = Kept()
    side = await link.channel()
    await side.declare_queue(Queue(f"{prefix}.heard", "", exclusive=True))
    await side.bind(Binding(names.events, f"{prefix}.heard", "#"))
    await side.consume(f"{prefix}.heard", kept, no_ack=True)

    publisher = Publisher()
    outbox = Outbox(publisher)

    async def attach(opened):
        await apply(await opened.channel(), cluster_topology(names), link=opened)

    proxied = through(amqp_url, proxy)
    supervisor = Supervisor(proxied, "test", publisher, attach=attach, detached=nothing)
    async with running(supervisor.run(connect_timeout=10)), running(outbox.run()):
        seen: list[int] = []
        await supervisor.up.wait()
        for number in range(1, 601):
            outbox.put(Message(str(number).encode()), names.events, "session.created.x")
        while len(set(seen)) < 600:
            seen.append(int((await kept.next()).message.body))
            if len(seen) in (50, 300):
                await proxy.disconnect_all()
        assert await outbox.flush(10)
        assert supervisor.reconnects >= 1
    firsts = list(dict.fromkeys(seen))
    assert firsts == sorted(firsts), "a later event came before an earlier one"


async def test_the_outbox_leaves_out_what_no_broker_takes(publisher, names, link):
    kept = Kept()
    side = await link.channel()
    await side.declare_queue(Queue(f"{names.prefix}.heard", "", exclusive=True))
    await side.bind(Binding(names.events, f"{names.prefix}.heard", "#"))
    await side.consume(f"{names.prefix}.heard", kept, no_ack=True)
    outbox = Outbox(publisher)
    async with running(outbox.run()):
        outbox.put(Message(b"x" * (MAX_BODY + 1)), names.events, "session.created.x")
        outbox.put(Message(b"next"), names.events, "session.created.x")
        assert (await kept.next()).message.body == b"next"
        assert await outbox.flush(10)
    assert not link.lost.done()


async def test_what_waits_to_be_sent_does_not_outlive_the_link(amqp_url, prefix, proxy):
    """aiormq sends through a queue of ten frames, which nobody empties any more."""
    many = 2000
    link, kept, publisher = Link(through(amqp_url, proxy), "test"), Kept(), Publisher()
    await link.open()
    try:
        publisher.attach(await link.publishing())
        channel = await link.channel()
        await channel.declare_queue(Queue(f"{prefix}.many", "", exclusive=True))
        await channel.consume(f"{prefix}.many", kept)
        message = Message(b"x")
        for _ in range(many):
            await publisher.publish(message, "", f"{prefix}.many", confirm=False)
        deliveries = [await kept.next() for _ in range(many)]
        async with asyncio.timeout(45):
            sending = asyncio.gather(
                *(delivery.ack() for delivery in deliveries),
                *(publisher.publish(message, "", f"{prefix}.many", confirm=False) for _ in range(many)),
                *(publisher.publish(message, "", f"{prefix}.many") for _ in range(many)),
                *(channel.declare_queue(Queue(f"{prefix}.many", "", exclusive=True)) for _ in range(many)),
                return_exceptions=True,
            )
            await asyncio.sleep(0)
            await proxy.disconnect_all()
            ended = await sending
        assert link.lost.done()
        assert any(isinstance(one, BrokerUnavailable) for one in ended), "nothing was waiting"
        assert not [one for one in ended if isinstance(one, BaseException) and not isinstance(one, BrokerError)]
    finally:
        await link.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_it_ends_where_its_cancellation_is_dropped(amqp_url, fails):
    """As ``asyncio.wait_for`` of Python 3.11, under which the library connects, drops one now and then."""
    tried: asyncio.Queue[Link] = asyncio.Queue()

    async def attach(opened):
        tried.put_nowait(opened)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if fails:
            raise ConnectionError

    supervisor = Supervisor(amqp_url, "test", Publisher(), attach=attach, detached=nothing)
    supervising = asyncio.create_task(supervisor.run(connect_timeout=10))
    link = await tried.get()
    supervising.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait({supervising})
    assert supervising.cancelled()
    assert link.lost.done(), "the link is open still"


async def test_a_lost_link_is_told_once_and_replaced(amqp_url, proxy):
    publisher = Publisher()
    attached: asyncio.Queue = asyncio.Queue()
    lost: asyncio.Queue = asyncio.Queue()

    async def attach(opened):
        attached.put_nowait(opened)

    async def detached():
        lost.put_nowait(None)

    proxied = through(amqp_url, proxy)
    supervisor = Supervisor(proxied, "test", publisher, attach=attach, detached=detached)
    async with running(supervisor.run(connect_timeout=10)), asyncio.timeout(45):
        first = await attached.get()
        await supervisor.up.wait()
        await proxy.disconnect_all()
        await lost.get()
        second = await attached.get()
        await supervisor.up.wait()
        assert first.token != second.token
        assert lost.empty()


def test_a_connection_that_never_came_about_is_closed_with_its_link():
    """Not by the garbage collector, in whatever loop runs then or in none."""

    async def fail():
        link = Link(f"amqp://{LOOPBACK}:{free_port()}/", "test")
        try:
            with pytest.raises(ConnectionError) as caught:
                await link.open()
        finally:
            await link.close()
        return caught

    asyncio.set_event_loop(None)
    loop = asyncio.new_event_loop()
    caught = loop.run_until_complete(fail())
    del caught  # the last that leads to the connection: what cannot be closed without a loop is an unraisable error
    gc.collect()
    loop.close()


async def test_a_channel_on_a_connection_that_is_gone_is_an_unavailable_broker(amqp_url, proxy):
    """Whatever the library makes of it: who asks now and then (``top``) goes on."""
    link = Link(through(amqp_url, proxy), "test")
    await link.open()
    try:
        await proxy.disconnect_all()
        async with asyncio.timeout(45):
            await link.lost
        with pytest.raises(BrokerUnavailable):
            async with link.scratch():
                pass
        with pytest.raises(BrokerUnavailable):
            await link.channel()
    finally:
        await link.close()


async def test_a_channel_is_not_awaited_on_a_connection_that_was_lost_while_the_link_was_attached():
    async with simulated_link() as wire, asyncio.timeout(BOUND):
        for connection in list(wire.node.clients):
            connection.cut(client_after=0.0, server_after=0.0)
        await wire.link.lost
        with pytest.raises(BrokerUnavailable):
            await wire.link.channel()


async def test_no_broker_at_start_is_an_error_that_names_it_without_its_password():
    port = free_port()

    async def attach(opened):
        raise AssertionError

    supervisor = Supervisor(
        f"amqp://someone:secret@{LOOPBACK}:{port}/", "test", Publisher(), attach=attach, detached=nothing
    )
    with pytest.raises(BrokerUnreachable) as caught:
        await supervisor.run(connect_timeout=0.5)
    assert str(port) in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_no_broker_at_start_takes_no_longer_than_it_may():
    client = SessionClient(f"amqp://{LOOPBACK}:{free_port()}/", connect_timeout=1.5)
    began = time.monotonic()
    with pytest.raises(CannotConnect, match=r"within 1\.5 s"):
        await client.connect()
    assert time.monotonic() - began < 1.5


async def test_a_broker_was_away_since_its_link_was_lost(amqp_url, proxy):
    async def slowly():
        await asyncio.sleep(0.5)

    async def attach(opened):
        pass

    supervisor = Supervisor(through(amqp_url, proxy), "test", Publisher(), attach=attach, detached=slowly)
    with capture_logs() as logs:
        async with running(supervisor.run(connect_timeout=10)):
            await supervisor.up.wait()
            await proxy.disconnect_all()
            while not any(one["event"] == "broker.reconnected" for one in logs):
                await asyncio.sleep(0.01)
    (told,) = [one for one in logs if one["event"] == "broker.reconnected"]
    assert told["away_s"] >= 0.5
