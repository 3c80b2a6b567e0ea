"""What anybody may publish, on a bare socket: no message ends a link, and each is handled or a dead letter with its
reason."""

import asyncio
import base64
import json
import struct
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from consumer.broker.dead_letter import Filter
from consumer.broker.dead_letter_queue import DeadLetterQueue
from consumer.broker.link import Link
from consumer.broker.message import Delivery
from consumer.broker.topology import Queue
from tests.acceptance.live_call import LiveCall, live_call
from tests.harness import WAIT, Cluster
from tests.raw_amqp import RawPublisher, long, moment, nested, short, table, text

NO_TEXT = b"caf\xe9"
NOW = time.time()
FRAME = 131_072

UNREADABLE: Final[dict[str, dict[str, bytes]]] = {
    "a timestamp in microseconds": {"timestamp": moment(int(NOW * 1e6))},
    "a timestamp in nanoseconds": {"timestamp": moment(int(NOW * 1e9))},
    "a negative timestamp": {"timestamp": moment(2**64 - 1)},
    "a huge timestamp": {"timestamp": moment(2**63 - 1)},
    "a type that is no text": {"type": short(NO_TEXT)},
    "a correlation id that is no text": {"correlation_id": short(NO_TEXT)},
    "a reply address that is no text": {"reply_to": short(NO_TEXT)},
    "a message id that is no text": {"message_id": short(NO_TEXT)},
    "a content type that is no text": {"content_type": short(NO_TEXT)},
    "a content encoding that is no text": {"content_encoding": short(NO_TEXT)},
    "an app id that is no text": {"app_id": short(NO_TEXT)},
    "a cluster id that is no text": {"cluster_id": short(NO_TEXT)},
    "a header whose name is no text": {"headers": table((NO_TEXT, b"V"))},
    "a header with a date beyond all dates": {"headers": table((b"at", b"T" + moment(2**63)))},
    "headers that are nested hundreds deep": {"headers": table((b"deep", nested(500)))},
    "countless fields in a header": {"headers": table((b"many", b"A" + long(b"V" * 100_000)))},
    "no delivery mode and an odd priority": {"priority": b"\xff"},
    "further routing keys, which we read otherwise than RabbitMQ": {
        "headers": table((b"CC", b"A" + long(text(b"further"))), (b"CC", b"I\0\0\0\1"), (b"BCC", b"A" + long(b"")))
    },
}
UNWRITABLE: Final[dict[str, dict[str, bytes]]] = {
    "bytes beyond UTF-8 in a header": {"headers": table((b"x-amqp-1.0-properties", text(b"\0\x53\x73\xc0\xff")))},
    "doubles that a float cannot hold": {
        "headers": table((b"a", b"d" + struct.pack(">d", 1e300)), (b"b", b"d" + struct.pack(">d", -1e300)))
    },
    "values of every type": {
        "headers": table(
            (b"array", b"A" + long(b"f" + struct.pack(">f", 1.5) + text(NO_TEXT) + b"x" + long(NO_TEXT))),
            (b"decimal", b"D\xff\xff\xff\xff\xff"),
            (
                b"table",
                b"F" + table((b"u", b"u\xff\xff"), (b"i", b"i\xff\xff\xff\xff"), (b"l", b"l" + b"\x80" + bytes(7))),
            ),
            (b"n" * 255, b"V"),
        )
    },
    "headers that leave no room for another": {"headers": table((b"large", text(b"x" * (FRAME - 800))))},
}
STRANGE = UNREADABLE | UNWRITABLE


@pytest.fixture
def raw(mcp: Cluster) -> Iterator[RawPublisher]:
    with RawPublisher(mcp.url) as publisher:
        yield publisher


@pytest.fixture
async def live(mcp: Cluster) -> AsyncIterator[LiveCall]:
    async with live_call(mcp) as call:
        yield call


class Answers:
    """A queue of answers, by their correlation ids."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._heard: dict[str, asyncio.Future[Delivery]] = {}

    def hear(self, delivery: Delivery) -> None:
        self._of(delivery.message.correlation_id or "").set_result(delivery)

    def _of(self, correlation_id: str) -> asyncio.Future[Delivery]:
        return self._heard.setdefault(correlation_id, asyncio.get_running_loop().create_future())

    async def to(self, correlation_id: str) -> tuple[str | None, dict[str, Any]]:
        """The type of the answer and what it says."""
        async with asyncio.timeout(WAIT):
            answer = await self._of(correlation_id)
        return answer.type, json.loads(answer.message.body)


@pytest.fixture
async def answers(link: Link, mcp: Cluster) -> Answers:
    channel = await link.channel()
    heard = Answers(f"{mcp.prefix}.strange-answers")
    await channel.declare_queue(Queue(heard.queue, "", exclusive=True))
    await channel.consume(heard.queue, heard.hear, no_ack=True)
    return heard


async def dead_letters_logged(mcp: Cluster, count: int) -> None:
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="dead_lettered")) >= count)


async def test_a_good_event_counts_whatever_its_properties_are(mcp: Cluster, live: LiveCall, raw: RawPublisher):
    for number, properties in enumerate(STRANGE.values()):
        body = json.dumps({"call_id": f"c-{number}", "kind": "started"}).encode()
        raw.publish(mcp.client.names.calls, b"\xff.started", body, **properties)
    for number in range(len(STRANGE)):
        await mcp.event("created", call_id=f"c-{number}")
    await live.undisturbed()


async def test_who_asks_is_answered_whatever_else_the_question_says(
    mcp: Cluster, live: LiveCall, raw: RawPublisher, answers: Answers
):
    names = mcp.client.names
    asked: list[str] = []

    def ask(exchange: str, key: bytes, kind: bytes, body: dict[str, Any], properties: dict[str, bytes]) -> None:
        asked.append(f"q-{len(asked)}")
        given = {"correlation_id": short(asked[-1].encode()), "reply_to": short(answers.queue.encode())}
        raw.publish(exchange, key, json.dumps(body).encode(), **({"type": short(kind)} | properties | given))

    for number, properties in enumerate(UNWRITABLE.values()):
        new = f"w-{number}"
        create = {"session_id": new, "service_name": "echo"}
        ask(names.sessions, new.encode(), b"session.create", create, properties)
        call = {"session_id": f"{new}-t", "service_name": "echo", "name": "echo", "arguments": {"text": "hello"}}
        ask(names.requests, f"{new}-t".encode(), b"tools.call", call, properties)
    for asked_for in asked:
        kind, answer = await answers.to(asked_for)
        assert answer["ok"], answer

    first = len(asked)
    unknown = b"no.such.type." + b"x" * 242
    for properties in STRANGE.values():
        ask(names.sessions, b"nobody", unknown, {}, properties)
        ask(names.requests, b"live", unknown, {}, properties)
        ask("", names.queries.encode(), unknown, {}, properties)
    for asked_for in asked[first:]:
        kind, answer = await answers.to(asked_for)
        assert kind is not None
        assert (kind.endswith(".reply"), answer["error"]["code"]) == (True, "UNKNOWN_TYPE")
    await live.undisturbed()


@pytest.mark.parametrize(
    "address",
    [
        b"x.y",
        b"\xff.\xff",
        base64.b64encode(b"\x83j") + b".eA==",  # any other value of Erlang's
        base64.b64encode(b"\x83Xv\0\7reply@1" + bytes(12)) + b".eA==",  # of a node elsewhere
    ],
)
async def test_a_direct_reply_address_that_is_not_the_brokers_costs_its_answer_only(
    mcp: Cluster, live: LiveCall, raw: RawPublisher, address: bytes
):
    reply_to = short(b"amq.rabbitmq.reply-to." + address)
    for number in range(3):
        body = json.dumps({"session_id": f"c-{number}", "service_name": "echo"}).encode()
        raw.publish(mcp.client.names.sessions, b"c-%d" % number, body, type=short(b"session.create"), reply_to=reply_to)
    for number in range(3):
        await mcp.event("created", call_id=f"c-{number}")
    await mcp.until(lambda: len(mcp.logged("reply.unsendable")) == 3)
    await live.undisturbed()


async def test_what_cannot_be_handled_becomes_a_dead_letter_as_it_came(
    mcp: Cluster, live: LiveCall, raw: RawPublisher, link: Link
):
    for properties in STRANGE.values():
        raw.publish(mcp.client.names.calls, b"\xff.key", b"who knows", **properties)
    raw.publish(mcp.client.names.calls, b"\xff.key", b"who", headers=table((b"larger", text(b"x" * (FRAME - 50)))))
    await dead_letters_logged(mcp, len(STRANGE) + 1)
    found = await DeadLetterQueue(link, mcp.client.names).fitting(Filter(reason="unrecognised"))
    assert len(found) == len(STRANGE) + 1
    assert {one.origin.routing_key for one in found} == {"\ufffd.key"}
    headers = {name: value for one in found for name, value in one.message.headers.items()}
    assert headers["x-amqp-1.0-properties"] == b"\0\x53\x73\xc0\xff"
    assert (headers["a"], headers["b"]) == (1e300, -1e300)
    assert headers["table"] == {"u": 0xFFFF, "i": 0xFFFFFFFF, "l": -(2**63)}
    assert headers["array"] == [1.5, NO_TEXT, bytearray(NO_TEXT)]
    assert len(headers["large"]) == FRAME - 800
    assert "larger" not in headers, "there is no room for it beside the reason"
    assert mcp.logged("publish.headers_left_out", headers=["larger"])
    await live.undisturbed()


async def test_a_dead_letter_queue_that_was_deleted_is_declared_again(
    mcp: Cluster, live: LiveCall, raw: RawPublisher, link: Link
):
    names = mcp.client.names
    async with link.scratch() as channel:
        await channel.delete_queue(names.dead_letters)
    for number in range(3):
        raw.publish(names.calls, b"", b"who knows %d" % number)
    await dead_letters_logged(mcp, 3)
    assert len(await DeadLetterQueue(link, names).fitting(Filter(reason="unrecognised"))) == 3
    await live.undisturbed()
