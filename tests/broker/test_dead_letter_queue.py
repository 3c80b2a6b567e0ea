"""The dead-letter queue: looked at without harm, replayed and dropped without loss, on a real broker."""

import asyncio
from datetime import UTC, datetime

import pytest

from consumer.broker import dead_letter_queue
from consumer.broker.dead_letter import DeadLetter, Filter
from consumer.broker.dead_letter_queue import DeadLetterQueue, NoSuchDeadLetter, Replayed
from consumer.broker.errors import BrokerError
from consumer.broker.link import Link
from consumer.broker.message import CALL_HEADER, Delivery, Message
from consumer.broker.outcome import ToDeadLetters
from consumer.broker.publisher import Publisher
from consumer.broker.topology import DELIVERY_LIMIT, Exchange, Names, Queue
from tests.broker.conftest import settler_of


@pytest.fixture
def lot(link, names):
    return DeadLetterQueue(link, names)


@pytest.fixture
def calls(link, names):
    """What is in the queue of raw calls, in order."""

    async def emptied():
        channel = await link.channel()
        kept: asyncio.Queue[Delivery] = asyncio.Queue()
        count = await channel.declare_queue(Queue(names.calls, ""), passive=True)
        tag = await channel.consume(names.calls, kept.put_nowait)
        async with asyncio.timeout(45):
            found = [await kept.get() for _ in range(count)]
        for delivery in found:
            await delivery.ack()
        await channel.cancel(tag)
        await channel.close()
        return found

    return emptied


async def decide(outcome):
    return outcome


async def put(link, publisher, names, bodies, *, reason="unrecognised", **properties):
    """Messages that were published to the raw calls, and made dead letters from there as a worker does it."""
    settler, channel = settler_of(publisher, names.dead_letters), await link.channel()
    kept: asyncio.Queue[Delivery] = asyncio.Queue()
    tag = await channel.consume(names.calls, kept.put_nowait)
    for body in bodies:
        await publisher.publish(Message(body, **properties), names.calls, "some.key")
        await settler.settle(await kept.get(), decide(ToDeadLetters(reason, f"it is {reason}")))
    await channel.cancel(tag)
    await channel.close()


async def bodies_in(lot):
    found = []

    def visit(letter):
        found.append(letter.message.body)
        return True

    await lot.look(visit)
    return found


def numbered(count):
    return [b"%04d" % number for number in range(count)]


async def test_looking_neither_takes_nor_reorders_however_often(link, publisher, names, lot):
    bodies = numbered(120)
    await put(link, publisher, names, bodies)
    for turn in range(DELIVERY_LIMIT + 5):
        seen: list[bytes] = []

        def visit(letter, seen=seen, stop=(1, 50, 119, 120)[turn % 4]):
            seen.append(letter.message.body)
            return len(seen) < stop

        look = await lot.look(visit)
        assert seen == bodies[: len(seen)]
        assert look.seen + look.left == 120
    assert await bodies_in(lot) == bodies


async def test_a_look_that_is_cut_off_loses_nothing(link, publisher, names, amqp_url, lot):
    bodies = numbered(100)
    await put(link, publisher, names, bodies)
    for _ in range(3):
        other = Link(amqp_url, "interrupted")
        await other.open()
        reached = asyncio.Event()

        def visit(letter, reached=reached):
            if letter.message.body == bodies[60]:
                reached.set()
            return True

        looking = asyncio.create_task(DeadLetterQueue(other, names).look(visit))
        await reached.wait()
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await other.close()
    async with asyncio.timeout(45):
        while await bodies_in(lot) != bodies:
            await asyncio.sleep(0.05)


async def test_what_a_foreign_consumer_rejects_is_a_dead_letter_again(link, publisher, names, lot, inbox):
    await put(link, publisher, names, numbered(2))
    channel = await link.channel()
    await channel.prefetch(1)
    await channel.consume(names.dead_letters, inbox)
    first = await inbox.next()
    await first.settle(requeue=False)
    second = await inbox.next()
    assert second.message.body == b"0001"
    await channel.close()
    async with asyncio.timeout(45):
        while len(found := await bodies_in(lot)) < 2:
            await asyncio.sleep(0.05)
    assert sorted(found) == numbered(2)


async def test_replayed_messages_are_as_they_were_and_dead_letters_no_more(link, publisher, names, lot, calls):
    await put(
        link,
        publisher,
        names,
        [b"\xff not JSON"],
        type="odd",
        message_id="m-1",
        correlation_id="c-1",
        reply_to="nobody",
        content_type="text/odd",
        timestamp=datetime(2026, 1, 31, tzinfo=UTC),
        headers={"mine": 1, "traceparent": "00-ab-cd-01", "x-mcp-deaths": 3, "x-death": []},
    )
    (letter,) = await lot.named(["m-1"])
    assert (letter.reason, letter.error, letter.size) == ("unrecognised", "it is unrecognised", 10)
    done: list[Replayed] = []
    await lot.replay([letter.id], publisher, done.append)
    assert [(one.exchange, one.routing_key, one.problem) for one in done] == [(names.calls, "some.key", "")]
    (back,) = await calls()
    assert (back.exchange, back.routing_key) == (names.calls, "some.key")
    assert back.message == Message(
        b"\xff not JSON",
        type="odd",
        message_id="m-1",
        correlation_id="c-1",
        content_type="text/odd",
        timestamp=datetime(2026, 1, 31, tzinfo=UTC),
        headers={"mine": 1, "traceparent": "00-ab-cd-01"},
    )
    assert await bodies_in(lot) == []


async def test_what_the_broker_gave_up_is_told_and_replayed_too(link, publisher, names, lot, calls, inbox):
    await publisher.publish(Message(b"{}", message_id="m-2", expiration=None), names.calls, "relay.events")
    channel = await link.channel()
    tag = await channel.consume(names.calls, inbox)
    for _ in range(DELIVERY_LIMIT + 1):
        await (await inbox.next()).requeue()
    async with asyncio.timeout(45):
        while not await bodies_in(lot):
            await asyncio.sleep(0.05)
    await channel.cancel(tag)
    (letter,) = await lot.fitting(Filter(reason="delivery_limit"))
    assert (letter.origin.exchange, letter.origin.routing_key) == (names.calls, "relay.events")
    assert letter.origin.queue == names.calls
    assert names.calls in letter.error
    assert abs((datetime.now(UTC) - letter.dead_lettered_at).total_seconds()) < 60
    await lot.replay([letter.id], publisher, lambda _: None)
    (back,) = await calls()
    assert (back.message.message_id, back.message.headers, back.routing_key) == ("m-2", {}, "relay.events")


async def test_a_replay_of_many_holds_few_bodies_and_keeps_their_order(link, publisher, names, lot, calls, monkeypatch):
    monkeypatch.setattr(dead_letter_queue, "BODIES", 1000)
    bodies = [body * 100 for body in numbered(30)]
    await put(link, publisher, names, bodies)
    everything = {one.id for one in await lot.fitting(Filter())}
    assert len(everything) == 30
    done: list[Replayed] = []
    await lot.replay(everything, publisher, done.append)
    assert [delivery.message.body for delivery in await calls()] == bodies
    assert len(done) == 30
    assert all(one.letter.message.body == b"" for one in done)


async def test_a_replay_that_is_cut_off_loses_nothing(link, publisher, names, amqp_url, lot, calls):
    bodies = numbered(60)
    await put(link, publisher, names, bodies)
    everything = {one.id for one in await lot.fitting(Filter())}
    other = Link(amqp_url, "interrupted")
    await other.open()
    done: list[Replayed] = []

    def count(replayed):
        done.append(replayed)
        if len(done) == 20:
            other.fail("cut off")
            cut = asyncio.create_task(other.close())
            done_cutting.append(cut)

    done_cutting: list[asyncio.Task] = []
    away = Publisher()
    away.attach(await other.publishing())
    with pytest.raises(BrokerError):
        await DeadLetterQueue(other, names).replay(everything, away, count)
    await asyncio.gather(*done_cutting)
    left: list[bytes] = []
    replayed = [delivery.message.body for delivery in await calls()]
    async with asyncio.timeout(45):
        while set(left) | set(replayed) != set(bodies):
            left = await bodies_in(lot)
            await asyncio.sleep(0.05)
    assert left == sorted(left)
    assert replayed == sorted(replayed)
    assert len(replayed) >= 20


async def test_what_no_queue_takes_stays_a_dead_letter_and_the_rest_goes_on(link, publisher, names, lot, calls):
    gone, deaf = f"{names.prefix}.gone", f"{names.prefix}.deaf"
    for number, exchange in enumerate((gone, deaf, names.calls)):
        headers = {"x-mcp-reason": "defect", "x-mcp-exchange": exchange, "x-mcp-routing-key": "k"}
        await publisher.publish(Message(b"%d" % number, headers=headers), names.dead_letters, "")
    channel = await link.channel()
    await channel.declare_exchange(Exchange(deaf, "topic", ""))
    done: list[Replayed] = []
    await lot.replay({one.id for one in await lot.fitting(Filter())}, publisher, done.append)
    await channel.delete_exchange(deaf)
    assert [bool(one.problem) for one in done] == [True, True, False]
    assert gone in done[0].problem
    assert await bodies_in(lot) == [b"0", b"1"]
    assert [delivery.message.body for delivery in await calls()] == [b"2"]
    assert not link.lost.done()


async def test_only_what_was_named_is_dropped(link, publisher, names, lot):
    await put(link, publisher, names, numbered(3))
    await put(link, publisher, names, [b"bad"], reason="invalid_message", type="session.create")
    first, second, third, bad = await lot.fitting(Filter())
    dropped: list[DeadLetter] = []
    await lot.drop({second.id, bad.id}, dropped.append)
    assert [one.id for one in dropped] == [second.id, bad.id]
    assert [one.id for one in await lot.fitting(Filter())] == [first.id, third.id]
    await lot.drop({second.id}, dropped.append)
    assert len(dropped) == 2


async def test_what_was_dropped_stays_dropped_however_much_it_is(link, publisher, names, lot):
    """RabbitMQ forgets the acknowledgements that it keeps back in a channel for a busy quorum queue."""
    await asyncio.gather(*(publisher.publish(Message(b"%d" % one), names.dead_letters, "") for one in range(1000)))
    dropped: list[DeadLetter] = []
    await lot.drop({one.id for one in await lot.fitting(Filter())}, dropped.append)
    assert len(dropped) == 1000
    assert await bodies_in(lot) == []


async def test_messages_are_called_by_the_beginning_of_their_id(link, publisher, names, lot):
    await put(link, publisher, names, numbered(40))
    found = await lot.fitting(Filter())
    assert [one.id for one in await lot.named([found[7].id[:8]])] == [found[7].id]
    letters = {one.id[0] for one in found}
    shared = next(letter for letter in letters if sum(one.id[0] == letter for one in found) > 1)
    with pytest.raises(NoSuchDeadLetter, match="is ambiguous"):
        await lot.named([shared])
    with pytest.raises(NoSuchDeadLetter, match="there is no dead letter"):
        await lot.named(["no such id"])


async def test_a_prefix_that_nobody_uses_is_told(link, prefix):
    with pytest.raises(NoSuchDeadLetter, match="no queue"):
        await DeadLetterQueue(link, Names(f"{prefix}-other")).fitting(Filter())


def letter_from(exchange, key, **more):
    origin = {"x-mcp-exchange": exchange, "x-mcp-routing-key": key, "x-mcp-reason": "defect"}
    message = Message(b"{}", type="session.create", headers=origin | more)
    return DeadLetter.of(delivered(message, exchange=Names().dead_letters), Names())


def delivered(message, *, exchange, routing_key=""):
    return Delivery(
        message, Names().dead_letters, exchange, routing_key, redelivered=False, received_at=0.0, settle=None
    )


def test_what_was_between_workers_begins_again_at_the_sessions_exchange():
    """The inbox may be gone, and what goes straight to the placer may be placed a second time."""
    names = Names()
    placed = letter_from("", "mcp.inbox.w-1", **{CALL_HEADER: "c-1", "x-mcp-placement": "w-2/7"})
    message, exchange, key = placed.replayed(names)
    assert (exchange, key, message.headers) == (names.sessions, "c-1", {})
    assert letter_from(names.unowned, "c-1").replayed(names)[1:] == (names.sessions, "c-1")
    assert letter_from(names.requests, "c-1").replayed(names)[1:] == (names.requests, "c-1")
    assert letter_from("", names.queries).replayed(names)[1:] == (names.cluster, "")
    assert letter_from(names.cluster, "any").replayed(names)[1:] == (names.cluster, "any")


def test_filters_know_a_call_by_its_routing_key():
    long = "c" * 300
    letter = letter_from("", "mcp.inbox.w-1", **{CALL_HEADER: long})
    assert Filter(call=long).fits(letter)
    assert Filter(call=f"{long}#todo").fits(letter)
    assert not Filter(call="c").fits(letter)
    assert not Filter(since=datetime.now(UTC)).fits(letter), "nobody knows when it became a dead letter"
