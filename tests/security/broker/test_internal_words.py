"""What workers tell each other, said by somebody who is none: a client, with its rights and with those of before."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.broker.link import Link
from consumer.broker.message import CALL_HEADER, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Binding, Queue
from infra.broker import PrivateBroker
from schemas import headers
from schemas.errors import ErrorCode
from schemas.internal import INTERNAL, PresenceReport, PresenceRequest
from schemas.requests import MADE_OF_EVENTS
from tests.acceptance.recipes import recipe_of
from tests.broker_users import NAMES, url_of
from tests.harness import Cluster, config
from tests.security.broker.attacker import Attacker
from tests.security.broker.scene import Scene

pytestmark = pytest.mark.timeout(240)

FAR = str(10**18)
HOSTILE: list[Any] = [
    "x/1",
    FAR,
    "-1",
    "NaN",
    "",
    -1,
    2**62,
    True,
    {"a": 1},
    ["x"] * 50,
    "é" * 300,
    "w" * 5_000,
    None,
]
OUR_HEADERS = sorted(
    {value for value in vars(headers).values() if isinstance(value, str) and value.startswith("x-mcp-")}
    - {headers.DEADLINE}
    | {CALL_HEADER, "x-mcp-exchange", "x-mcp-origin", "x-mcp-anything"}
)


def bodies(call: str, worker: str) -> dict[str, bytes]:
    """What would do harm if it were believed: sessions under another call's id, ends, a worker that is none."""
    return {
        "call.recipe": recipe_of(worker, call, at=datetime.now(UTC)).body.replace(
            b'"timeout":60.0', b'"timeout":1e300'
        ),
        "owner.check": b'{"call_id": "%s", "worker_id": "w-1", "revision": 1}' % call.encode(),
        "worker.endings": b'{"worker_id": "w-1", "ended": {"%s": %d}}' % (call.encode(), time.time()),
        "worker.closings": b'{"worker_id": "w-1", "closed": {"%s": %d}}' % (call.encode(), time.time()),
    } | {kind: b'{"call_id": "%s", "kind": "%s"}' % (call.encode(), kind[5:].encode()) for kind in MADE_OF_EVENTS}


async def test_a_client_can_say_nothing_that_only_workers_say(scene: Scene, attacker: Attacker):
    owner = (await scene.client.list_sessions()).sessions["live-0"].worker_id
    kinds = sorted({*MADE_OF_EVENTS, *(one.type for one in INTERNAL)})

    async def attack() -> None:
        for call in ("live-0", "nobody"):
            said = bodies(call, owner)
            for exchange in (NAMES.sessions, NAMES.requests, NAMES.cluster):
                for kind in kinds:
                    answer = await attacker.ask(exchange, call, kind, said.get(kind, b"{}"))
                    assert answer.error is not None
                    assert answer.error.code is ErrorCode.INVALID_MESSAGE
                    assert kind in answer.error.message
                    if kind in MADE_OF_EVENTS:
                        assert f"the exchange '{NAMES.calls}'" in answer.error.message

    await scene.undisturbed(attack)
    assert len(scene.dead_letters()) % (2 * 3 * len(kinds)) == 0, "each becomes a dead letter once"
    assert {one["reason"] for one in scene.dead_letters()} == {"invalid_message"}


async def test_headers_of_a_client_move_no_call_and_stop_no_placing(scene: Scene, attacker: Attacker):
    """Far moments, placers that are none, hops that never were: each on a message that is a client's own."""
    owner = (await scene.client.list_sessions()).sessions["live-0"].worker_id
    opened = frozenset(f"mine-{number}" for number in range(len(HOSTILE)))

    async def attack() -> None:
        for number, value in enumerate(HOSTILE):
            forged = dict.fromkeys(OUR_HEADERS, value)
            body = {"session_id": f"mine-{number}", "service_name": "echo", "if_exists": "keep"}
            answer = await attacker.ask(NAMES.sessions, f"mine-{number}", "session.create", body, headers=forged)
            assert answer.ok, answer
            answer = await attacker.ask(
                NAMES.requests, "live-0", "session.get", {"session_id": "live-0"}, headers=forged
            )
            assert answer.ok, answer
        for name in (headers.RETURNED, headers.REFUSED, headers.ORPHAN_OF):
            forged = {name: owner, headers.RETURNS: 2, headers.DISOWNED: ""}
            body = {"session_id": "live-0#other", "service_name": "nothing"}
            answer = await attacker.ask(NAMES.sessions, "live-0", "session.create", body, headers=forged)
            assert answer.error is not None
            assert answer.error.code is ErrorCode.SERVICE_NOT_FOUND

    await scene.undisturbed(attack, besides=opened)
    assert scene.dead_letters() == []


async def test_forged_starts_wait_for_room_no_longer_than_others(mcp: Cluster, node: PrivateBroker, attacker: Attacker):
    """With ``x-mcp-admission-until`` far away two thousand of them once stopped all placing for good."""
    small = config(session={"max_total_sessions": 1}, worker={"admission_wait": 1})
    await mcp.start(small, AMQP_URL=url_of(node, "worker"))
    await mcp.client.create("only", "echo")

    async def start(number: int) -> None:
        body = {"session_id": f"forged-{number}", "service_name": "echo"}
        far = {headers.ADMISSION: FAR, headers.PLACEMENT: f"placer-{number}/1"}
        answer = await attacker.ask(NAMES.sessions, f"forged-{number}", "session.create", body, headers=far)
        assert answer.error is not None
        assert answer.error.code in (ErrorCode.CAPACITY, ErrorCode.SERVICE_SESSION_LIMIT)

    await asyncio.gather(*map(start, range(200)))
    await mcp.client.close("only")
    await mcp.client.create("next", "echo")


async def test_a_forged_death_buries_nobody(scene: Scene, attacker: Attacker):
    """RabbitMQ up to 3.13 takes over the ``x-death`` that a client publishes."""
    owner = (await scene.client.list_sessions()).sessions["live-0"].worker_id
    opened = frozenset(f"mine-{number}" for number in range(4))

    async def attack() -> None:
        queues = (NAMES.inbox(owner), NAMES.inbox("nobody"), NAMES.inbox("w" * 300), "elsewhere")  # type: ignore[arg-type]
        for number, queue in enumerate(queues):
            death = {"queue": queue, "reason": "expired", "exchange": "", "count": 1, "routing-keys": ["live-0"]}
            forged = {"x-death": [death], "x-first-death-queue": queue}
            body = {"session_id": f"mine-{number}", "service_name": "echo", "if_exists": "keep"}
            began = time.monotonic()
            answer = await attacker.ask(NAMES.sessions, f"mine-{number}", "session.create", body, headers=forged)
            assert answer.ok, answer
            assert time.monotonic() - began < 5, "the placer waited for a worker that is not dead"
            got = await attacker.ask(NAMES.requests, "live-0", "session.get", {"session_id": "live-0"}, headers=forged)
            assert got.ok

    await scene.undisturbed(attack, besides=opened)


async def test_what_cannot_be_read_is_answered_and_dead_lettered_once(scene: Scene, attacker: Attacker):
    async def attack() -> None:
        for exchange, key in ((NAMES.sessions, "live-0"), (NAMES.requests, "live-0"), (NAMES.cluster, "")):
            answer = await attacker.ask(exchange, key, "t" * 255)
            assert answer.error is not None
            assert answer.error.code is ErrorCode.UNKNOWN_TYPE
        for value in ("soon", "NaN", {"a": 1}, True):
            body = {"session_id": "late", "service_name": "echo"}
            answer = await attacker.ask(
                NAMES.sessions, "late", "session.create", body, headers={headers.DEADLINE: value}
            )
            assert answer.error is not None
            assert answer.error.code is ErrorCode.INVALID_MESSAGE
            assert headers.DEADLINE in answer.error.message

    await scene.undisturbed(attack)
    assert len(scene.dead_letters()) % 7 == 0
    assert not scene.mcp.logged("delivery", outcome="requeued")


async def test_no_answer_goes_into_a_queue_of_the_workers(scene: Scene, attacker: Attacker):
    """A reply address is where workers write with their own rights."""
    owner = (await scene.client.list_sessions()).sessions["live-0"].worker_id
    ours = [NAMES.calls, NAMES.unowned, NAMES.orphans, NAMES.queries, NAMES.dead_letters, NAMES.inbox(owner)]
    ours += [NAMES.worker(owner, "abc"), NAMES.requests_of(owner, "abc")]

    async def attack() -> None:
        before = len(scene.dead_letters())
        for queue in ours:
            where = {"reply_to": queue, "correlation_id": "x"}
            await attacker.send(NAMES.requests, "live-0", "session.get", {"session_id": "live-0"}, **where)
            await attacker.send(NAMES.sessions, "live-0", "owner.check", b"{}", **where)
            await attacker.send(NAMES.cluster, "", "workers.list", **where)
        await scene.mcp.until(lambda: len(scene.dead_letters()) >= before + 3 * len(ours))

    await scene.undisturbed(attack)
    assert len(scene.dead_letters()) % (3 * len(ours)) == 0, "what an answer caused became a dead letter as well"
    assert all("is a queue of the workers" in one["error"] for one in scene.dead_letters())


async def test_a_client_of_before_that_may_write_into_queues_is_believed_no_more(scene: Scene, former: Attacker):
    owner = (await scene.client.list_sessions()).sessions["live-0"].worker_id
    said = bodies("live-0", owner)
    marks = {headers.PLACEMENT: "placer/1", CALL_HEADER: "live-0", headers.RETURNED: owner, headers.RETURNS: 2}
    create = {"session_id": "live-0", "service_name": "echo"}

    async def attack() -> None:
        for queue in (NAMES.inbox(owner), NAMES.unowned):
            for kind, body in said.items():
                answer = await former.ask("", queue, kind, body, headers=marks)
                assert answer.error is not None
            answer = await former.ask("", queue, "session.create", create, headers=marks)
            assert answer.error is not None
            assert NAMES.sessions in answer.error.message
        assert (await former.ask("", NAMES.queries, "workers.list")).ok, "questions may still come the old way"

    await scene.undisturbed(attack)


async def test_a_client_cannot_pretend_to_be_a_worker_by_name(scene: Scene, attacker: Attacker):
    """RabbitMQ refuses a name that is not the user's own; its own name makes nobody a worker."""
    answer = await attacker.ask(
        NAMES.sessions, "live-0", "call.ended", bodies("live-0", "w")["call.ended"], user_id="client"
    )
    assert answer.error is not None
    assert answer.error.code is ErrorCode.INVALID_MESSAGE
    with pytest.raises(Exception, match="authenticated user was 'client'"):
        await attacker.send(NAMES.sessions, "live-0", "call.ended", user_id="worker")


async def test_what_a_client_wrote_into_a_workers_own_queue_is_not_heard(
    scene: Scene, former: Attacker, node: PrivateBroker
):
    names = [name for name in await asyncio.to_thread(queues, node) if name.startswith(f"{NAMES.prefix}.workers.")]
    assert len(names) == 2
    workers = (await scene.client.list_workers()).workers
    ghost = PresenceReport(worker=workers[0].model_copy(update={"worker_id": "ghost", "capacity": 10**6}))
    ended = bodies("live-0", "w-1")["worker.endings"]

    async def attack() -> None:
        for queue in names:
            await former.send("", queue, PresenceReport.type, ghost.model_dump_json().encode())
            await former.send("", queue, "worker.endings", ended)
            await former.send(
                "", queue, "owner.check.reply", b'{"ok": true, "result": {"call_id": "live-0", "owner": "x"}}'
            )
        await scene.mcp.until(lambda: len(scene.mcp.logged("peers.not_a_worker")) >= 6)

    await scene.undisturbed(attack)
    assert [one.worker_id for one in (await scene.client.list_workers()).workers] == [one.worker_id for one in workers]


def queues(node: PrivateBroker) -> list[str]:
    return node.rabbitmqctl("list_queues", "name", "--silent", "--no-table-headers").split()


async def test_a_worker_that_went_mad_makes_no_report_too_large(mcp: Cluster, node: PrivateBroker):
    """72,000 placers that were made up once made a worker's report larger than a message."""
    worker = await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    link, publisher = Link(node.url, "listener"), Publisher()
    mad, signed = Link(url_of(node, "worker"), "mad"), Publisher(signs=True)
    await link.open()
    await mad.open()
    try:
        publisher.attach(await link.publishing())
        signed.attach(await mad.publishing(signed=True))
        for number in range(100):
            marks = {CALL_HEADER: "mad", headers.PLACEMENT: f"made-up-{number}/{number}"}
            get = Message(b'{"session_id": "mad"}', type="session.get", headers=marks)
            await signed.publish(get, "", NAMES.inbox(worker.worker_id))  # type: ignore[arg-type]
        for bad in ("placer", "/1", "placer/x", "placer/" + "9" * 30, "p" * 5000 + "/1"):
            marks = {CALL_HEADER: "mad", headers.PLACEMENT: bad}
            get = Message(b'{"session_id": "mad"}', type="session.get", headers=marks)
            await signed.publish(get, "", NAMES.inbox(worker.worker_id))  # type: ignore[arg-type]
        await mcp.until(lambda: len(mcp.logged("delivery", outcome="dead_lettered")) == 5)
        heard: asyncio.Queue[PresenceReport] = asyncio.Queue()
        channel = await link.channel()
        queue = Queue(f"{NAMES.prefix}.workers.listener.1", "", exclusive=True)
        await channel.declare_queue(queue)
        await channel.bind(Binding(NAMES.workers, queue.name))
        await channel.consume(
            queue.name,
            lambda one: (
                heard.put_nowait(PresenceReport.model_validate_json(one.message.body))
                if one.type == PresenceReport.type
                else None
            ),
            no_ack=True,
        )
        ask = Message(b'{"worker_id": "listener"}', type=PresenceRequest.type)
        await signed.publish(ask, NAMES.workers, "")  # a worker at rest reports only when it is asked
        async with asyncio.timeout(45):
            report = await heard.get()
        assert "made-up-99" in report.placements
        assert len(report.placements) <= 32
    finally:
        await link.close()
        await mad.close()
