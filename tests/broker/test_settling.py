"""What becomes of a delivery: exactly one thing, on a real broker."""

import asyncio

import pytest

from consumer.broker.asking import Asker
from consumer.broker.errors import BrokerUnavailable, PublishFailed, Unsendable
from consumer.broker.message import Message
from consumer.broker.outcome import Done, Forward, Hold, Park, Requeue
from consumer.broker.parked import Filter
from consumer.broker.parking import ParkingLot
from consumer.broker.settling import Settler
from consumer.broker.topology import Binding, Queue
from schemas.replies import succeeded


@pytest.fixture
def settler(publisher, names):
    return Settler(publisher, names.dead)


async def decide(outcome):
    return outcome


async def sent(link, publisher, names, inbox, **properties):
    """A message that was published to the raw calls and delivered."""
    channel = await link.channel()
    await channel.consume(names.calls, inbox)
    await publisher.confirmed(Message(b'{"a": 1}', **properties), names.calls, "some.key")
    return channel, await inbox.next()


async def counts(link, queue):
    async with link.scratch() as channel:
        return await channel.declare_queue(Queue(queue, ""), passive=True)


async def test_done_answers_who_asked_and_takes_the_message_from_the_queue(link, publisher, names, inbox, settler):
    asker = Asker(publisher)
    answers = Queue(f"{names.prefix}.answers", "", exclusive=True)
    side = await link.channel()
    await side.declare_queue(answers)
    await side.consume(answers.name, asker.heard, no_ack=True)
    asker.attach(answers.name)
    channel = await link.channel()
    await channel.consume(names.calls, inbox)
    asking = asyncio.create_task(asker.ask(Message(b"{}", type="some.question"), names.calls, "", timeout=10))
    delivery = await inbox.next()
    await settler.settle(delivery, decide(Done(succeeded({"answer": 42}))))
    answer = await asking
    assert answer.type == "some.question.reply"
    assert answer.message.body == b'{"ok":true,"result":{"answer":42}}'
    await channel.close()
    assert await counts(link, names.calls) == 0


async def test_more_than_two_thousand_messages_of_a_quorum_queue_may_be_held(link, publisher, names, inbox):
    """What a worker holds for each of its calls must not keep the next message from it."""
    held = 2100
    await asyncio.gather(*(publisher.confirmed(Message(b"{}"), names.calls, "") for _ in range(held)))
    channel = await link.channel()
    await channel.consume(names.calls, inbox)
    assert len([await inbox.next() for _ in range(held)]) == held


async def test_parked_messages_carry_their_reason_and_where_they_came_from(link, publisher, names, inbox, settler):
    _, delivery = await sent(link, publisher, names, inbox, type="odd", headers={"mine": 1, "x-death": []})
    parked_in = type(inbox)()
    side = await link.channel()
    await side.consume(names.dead, parked_in)
    await settler.settle(delivery, decide(Park("unrecognised", "no platform sends this")))
    parked = await parked_in.next()
    await parked.ack()
    assert parked.message.body == b'{"a": 1}'
    assert parked.message.type == "odd"
    assert parked.message.headers.pop("x-mcp-parked-at")
    assert parked.message.headers == {
        "mine": 1,
        "x-mcp-reason": "unrecognised",
        "x-mcp-error": "no platform sends this",
        "x-mcp-exchange": names.calls,
        "x-mcp-routing-key": "some.key",
        "x-mcp-queue": names.calls,
    }


async def test_a_decision_that_raises_parks_the_message_and_the_worker_lives_on(link, publisher, names, inbox, settler):
    async def defect():
        raise ZeroDivisionError

    _, delivery = await sent(link, publisher, names, inbox)
    await settler.settle(delivery, defect())
    side = await link.channel()
    parked_in = type(inbox)()
    await side.consume(names.dead, parked_in)
    parked = await parked_in.next()
    await parked.ack()
    assert parked.message.headers["x-mcp-reason"] == "defect"


async def test_a_held_delivery_is_back_when_its_channel_has_gone(link, publisher, names, inbox, settler):
    channel, delivery = await sent(link, publisher, names, inbox)
    await settler.settle(delivery, decide(Hold()))
    await channel.close()
    again = await link.channel()
    await again.consume(names.calls, inbox)
    delivery = await inbox.next()
    assert delivery.redelivered
    await settler.settle(delivery, decide(Requeue("not now")))
    third = await inbox.next()
    await third.ack()


async def test_a_failed_forward_requeues(link, publisher, names, inbox, settler):
    _, delivery = await sent(link, publisher, names, inbox)
    await settler.settle(delivery, decide(Forward("", f"{names.prefix}.nowhere", delivery.message.again())))
    again = await inbox.next()
    assert again.redelivered
    await again.ack()


async def test_settling_twice_does_not_cost_the_channel(link, publisher, names, inbox):
    channel, delivery = await sent(link, publisher, names, inbox)
    await delivery.ack()
    await delivery.ack()
    await delivery.requeue()
    assert await channel.declare_queue(Queue(names.calls, ""), passive=True) == 0
    assert not link.lost.done()


async def test_a_publish_that_no_queue_takes_fails_loudly(publisher, names):
    with pytest.raises(PublishFailed, match="no queue takes"):
        await publisher.confirmed(Message(b""), names.events, "session.created.x")
    await publisher.confirmed(Message(b""), names.events, "session.created.x", mandatory=False)


async def test_without_a_link_publishing_says_so(publisher):
    publisher.detach()
    with pytest.raises(BrokerUnavailable):
        await publisher.confirmed(Message(b""), "", "q")
    with pytest.raises(BrokerUnavailable):
        await publisher.fast(Message(b""), "", "q")


async def told_by_the_broker(link, names):
    """The reason of the only dead letter, which RabbitMQ itself has put there."""
    lot = ParkingLot(link, names)
    async with asyncio.timeout(10):
        while not (found := await lot.fitting(Filter())):
            await asyncio.sleep(0.05)
    return [one.reason for one in found]


async def test_a_message_whose_handler_fails_is_not_held_for_ever(link, publisher, names):
    def fail(_):
        raise ValueError("a header that nobody expected")

    channel = await link.channel()
    await channel.consume(names.calls, fail)
    await publisher.confirmed(Message(b"{}"), names.calls, "")
    assert await told_by_the_broker(link, names) == ["rejected"]


async def test_what_cannot_even_be_parked_is_given_up_to_the_broker(link, publisher, names, inbox):
    _, delivery = await sent(link, publisher, names, inbox)
    await Settler(publisher, "no exchange!").settle(delivery, decide(Park("unrecognised", "nobody knows it")))
    assert await told_by_the_broker(link, names) == ["rejected"]


async def test_what_cannot_be_sent_on_is_parked_and_not_tried_again(link, publisher, names, inbox, settler):
    _, delivery = await sent(link, publisher, names, inbox)
    await settler.settle(delivery, decide(Forward("", "\ud800" * 3, Message(b"{}"))))
    parked = await ParkingLot(link, names).fitting(Filter(reason="invalid_message"))
    assert [one.origin.queue for one in parked] == [names.calls]


async def test_what_the_library_has_no_words_for_is_no_fault_of_the_broker(link, publisher, names):
    with pytest.raises(Unsendable):
        await publisher.fast(Message(b"{}"), "no exchange!", "")
    with pytest.raises(Unsendable):
        await publisher.confirmed(Message(b"{}"), "", "k" * 256)
    channel = await link.channel()
    with pytest.raises(Unsendable):
        await channel.unbind(Binding(names.sessions, "no queue!", ""))
    await publisher.confirmed(Message(b"{}"), names.calls, "")
    assert not link.lost.done()
