"""What becomes of a delivery: exactly one thing, on a real broker."""

import asyncio

import pytest

from consumer.broker.dead_letter import Filter
from consumer.broker.dead_letter_queue import DeadLetterQueue
from consumer.broker.errors import BrokerUnavailable, PublishFailed, Unsendable
from consumer.broker.message import Message
from consumer.broker.outcome import Done, Forward, Hold, Requeue, ToDeadLetters
from consumer.broker.rpc import RpcClient
from consumer.broker.topology import Binding, Queue
from schemas.replies import succeeded
from tests.broker.conftest import settler_of


@pytest.fixture
def settler(publisher, names):
    return settler_of(publisher, names.dead_letters)


async def decide(outcome):
    return outcome


async def sent(link, publisher, names, inbox, **properties):
    """A message that was published to the raw calls and delivered."""
    channel = await link.channel()
    await channel.consume(names.calls, inbox)
    await publisher.publish(Message(b'{"a": 1}', **properties), names.calls, "some.key")
    return channel, await inbox.next()


async def counts(link, queue):
    async with link.scratch() as channel:
        return await channel.declare_queue(Queue(queue, ""), passive=True)


async def test_done_answers_who_asked_and_takes_the_message_from_the_queue(link, publisher, names, inbox, settler):
    rpc_client = RpcClient(publisher)
    answers = Queue(f"{names.prefix}.answers", "", exclusive=True)
    side = await link.channel()
    await side.declare_queue(answers)
    await side.consume(answers.name, rpc_client.receive, no_ack=True)
    rpc_client.attach(answers.name)
    channel = await link.channel()
    await channel.consume(names.calls, inbox)
    asking = asyncio.create_task(rpc_client.ask(Message(b"{}", type="some.question"), names.calls, "", timeout=10))
    delivery = await inbox.next()
    await settler.settle(delivery, decide(Done(succeeded({"answer": 42}))))
    answer = await asking
    assert answer.type == "some.question.reply"
    assert answer.message.body == b'{"ok":true,"result":{"answer":42}}'
    await channel.close()
    assert await counts(link, names.calls) == 0


async def test_a_reply_that_no_queue_takes_is_logged_once_a_minute(
    link, publisher, names, inbox, settler, capsys: pytest.CaptureFixture[str]
):
    def lines():
        return [line for line in read() if "reply.dropped" in line]

    def read(told: list[str] = []):  # noqa: B006 - what was printed so far
        told += capsys.readouterr().out.splitlines()
        return told

    heard = Queue(f"{names.prefix}.heard", "", exclusive=True)
    side = await link.channel()
    await side.declare_queue(heard)
    channel = await link.channel()
    await channel.consume(names.calls, inbox)
    for address in (heard.name, "mispelt.replies", "mispelt.replies", "amq.rabbitmq.reply-to.nobody"):
        await publisher.publish(Message(b"{}", type="tools.call", reply_to=address), names.calls, "c-1")
        done = Done(succeeded({"big": "x" * 300_000}), about={"tool": "add_todo"})
        await settler.settle(await inbox.next(), decide(done))
    async with asyncio.timeout(10):
        while not lines():
            await asyncio.sleep(0.05)
    assert await counts(link, heard.name) == 1
    (line,) = lines()
    assert "[warning" in line
    for part in ("mispelt.replies", "add_todo", "tools.call.reply"):
        assert part in line
    await publisher.publish(Message(b"{}"), names.calls, "c-1")  # the link lives on
    await inbox.next()


async def test_more_than_two_thousand_messages_of_a_quorum_queue_may_be_held(link, publisher, names, inbox):
    """What a worker holds for each of its calls must not keep the next message from it."""
    held = 2100
    await asyncio.gather(*(publisher.publish(Message(b"{}"), names.calls, "") for _ in range(held)))
    channel = await link.channel()
    await channel.consume(names.calls, inbox)
    assert len([await inbox.next() for _ in range(held)]) == held


async def test_dead_letters_carry_their_reason_and_where_they_came_from(link, publisher, names, inbox, settler):
    _, delivery = await sent(link, publisher, names, inbox, type="odd", headers={"mine": 1, "x-death": []})
    dead_letters = type(inbox)()
    side = await link.channel()
    await side.consume(names.dead_letters, dead_letters)
    await settler.settle(delivery, decide(ToDeadLetters("unrecognised", "no platform sends this")))
    letter = await dead_letters.next()
    await letter.ack()
    assert letter.message.body == b'{"a": 1}'
    assert letter.message.type == "odd"
    assert letter.message.headers.pop("x-mcp-parked-at")
    assert letter.message.headers == {
        "mine": 1,
        "x-mcp-reason": "unrecognised",
        "x-mcp-error": "no platform sends this",
        "x-mcp-exchange": names.calls,
        "x-mcp-routing-key": "some.key",
        "x-mcp-queue": names.calls,
    }


async def test_a_decision_that_raises_makes_a_dead_letter_and_the_worker_lives_on(
    link, publisher, names, inbox, settler
):
    async def defect():
        raise ZeroDivisionError

    _, delivery = await sent(link, publisher, names, inbox)
    await settler.settle(delivery, defect())
    side = await link.channel()
    dead_letters = type(inbox)()
    await side.consume(names.dead_letters, dead_letters)
    letter = await dead_letters.next()
    await letter.ack()
    assert letter.message.headers["x-mcp-reason"] == "defect"


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
        await publisher.publish(Message(b""), names.events, "session.created.x")
    await publisher.publish(Message(b""), names.events, "session.created.x", mandatory=False)


async def test_without_a_link_publishing_says_so(publisher):
    publisher.detach()
    with pytest.raises(BrokerUnavailable):
        await publisher.publish(Message(b""), "", "q")
    with pytest.raises(BrokerUnavailable):
        await publisher.publish(Message(b""), "", "q", confirm=False)


async def told_by_the_broker(link, names):
    """The reason of the only dead letter, which RabbitMQ itself has put there."""
    lot = DeadLetterQueue(link, names)
    async with asyncio.timeout(45):
        while not (found := await lot.fitting(Filter())):
            await asyncio.sleep(0.05)
    return [one.reason for one in found]


async def test_a_message_whose_handler_fails_is_not_held_for_ever(link, publisher, names):
    def fail(_):
        raise ValueError("a header that nobody expected")

    channel = await link.channel()
    await channel.consume(names.calls, fail)
    await publisher.publish(Message(b"{}"), names.calls, "")
    assert await told_by_the_broker(link, names) == ["rejected"]


async def test_what_cannot_even_be_dead_lettered_is_given_up_to_the_broker(link, publisher, names, inbox):
    _, delivery = await sent(link, publisher, names, inbox)
    await settler_of(publisher, "no exchange!").settle(
        delivery, decide(ToDeadLetters("unrecognised", "nobody knows it"))
    )
    assert await told_by_the_broker(link, names) == ["rejected"]


async def test_what_cannot_be_sent_on_is_dead_lettered_and_not_tried_again(link, publisher, names, inbox, settler):
    _, delivery = await sent(link, publisher, names, inbox)
    await settler.settle(delivery, decide(Forward("", "\ud800" * 3, Message(b"{}"))))
    letters = await DeadLetterQueue(link, names).fitting(Filter(reason="invalid_message"))
    assert [one.origin.queue for one in letters] == [names.calls]


async def test_what_the_library_has_no_words_for_is_no_fault_of_the_broker(link, publisher, names):
    with pytest.raises(Unsendable):
        await publisher.publish(Message(b"{}"), "no exchange!", "", confirm=False)
    with pytest.raises(Unsendable):
        await publisher.publish(Message(b"{}"), "", "k" * 256)
    channel = await link.channel()
    with pytest.raises(Unsendable):
        await channel.unbind(Binding(names.sessions, "no queue!", ""))
    await publisher.publish(Message(b"{}"), names.calls, "")
    assert not link.lost.done()
