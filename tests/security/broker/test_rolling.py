"""Workers from before the signatures, beside those of today: while they are heard, what bears no name is believed."""

from datetime import UTC, datetime

import pytest

from consumer.broker.link import Link
from consumer.broker.message import Message
from consumer.broker.publisher import Publisher
from infra.broker import PrivateBroker
from schemas.errors import ErrorCode
from schemas.ids import WorkerId
from schemas.internal import PresenceReport, PresenceRequest
from schemas.sessions import ServiceLoad, WorkerInfo
from tests.acceptance.recipes import recipe_of
from tests.broker_users import NAMES, url_of
from tests.harness import Cluster, config
from tests.security.broker.attacker import Attacker

pytestmark = pytest.mark.timeout(240)


async def test_what_an_older_worker_left_behind_is_restored(mcp: Cluster, node: PrivateBroker):
    worker = await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    link, older = Link(url_of(node, "worker"), "older"), Publisher()
    await link.open()
    older.attach(await link.publishing())
    try:
        recipe = recipe_of("w-older", "c-1", at=datetime.now(UTC))
        await older.publish(recipe, NAMES.sessions, "c-1")
        await mcp.until(lambda: mcp.logged("delivery", type="call.recipe", outcome="dead_lettered"))
        info = WorkerInfo(
            worker_id="w-older",  # type: ignore[arg-type]
            host="h",
            pid=1,
            version="0.0.9",
            state="draining",
            started_at=datetime.now(UTC),
            sessions=1,
            capacity=1,
            services={"echo": ServiceLoad()},
        )
        report = Message(
            PresenceReport(worker=info).model_dump_json().encode(), type=PresenceReport.type, persistent=False
        )
        await older.publish(report, NAMES.workers, "")
        await worker.logged("origin.unsigned_worker")
        await older.publish(recipe, NAMES.sessions, "c-1")
        await mcp.event("created", call_id="c-1", restored=True)
    finally:
        await link.close()


async def test_a_client_makes_nobody_believe_that_an_older_worker_is_there(
    mcp: Cluster, node: PrivateBroker, attacker: Attacker
):
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    assert await attacker.is_refused(NAMES.workers, "", PresenceReport.type)
    for exchange in (NAMES.sessions, NAMES.requests, NAMES.cluster):
        assert not (await attacker.ask(exchange, "c-1", PresenceReport.type)).ok
    assert not mcp.logged("origin.unsigned_worker")


async def test_only_a_readable_presence_without_a_name_makes_an_older_worker(
    mcp: Cluster, node: PrivateBroker, attacker: Attacker
):
    """A message of no type, written to the exchange of the workers, once had every unsigned message believed."""
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    await mcp.client.create("c-1", "echo")
    strangers = [(None, b"x"), ("x", b"{}"), ("worker.endings", b"{}"), (PresenceReport.type, b"{}")]
    strangers += [(PresenceReport.type, b"x"), (PresenceRequest.type, b'{"worker_id": "w-1"}')]
    async with Attacker(url_of(node, "worker")) as stranger:
        for kind, body in strangers:
            await stranger.send(NAMES.workers, "", kind, body)
    await mcp.until(lambda: len(mcp.logged("presence.unreadable")) == 2)
    await mcp.until(lambda: len(mcp.logged("peers.not_a_worker")) == 3)
    answer = await attacker.ask(NAMES.sessions, "c-1", "call.ended", {"call_id": "c-1", "kind": "ended"})
    assert answer.error is not None
    assert answer.error.code is ErrorCode.INVALID_MESSAGE
    assert (await mcp.client.list_sessions()).sessions.keys() == {"c-1"}
    assert not mcp.logged("origin.unsigned_worker")


async def test_a_call_named_like_an_older_workers_inbox_has_no_forged_recipe_believed(
    mcp: Cluster, node: PrivateBroker, attacker: Attacker
):
    """Its dead letters bear the key of an inbox; that there is no such inbox is asked of the broker."""
    first = await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    older = WorkerId("made-1-abcdef")
    call = NAMES.inbox(older)
    answer = await attacker.ask(NAMES.sessions, call, "session.create", {"session_id": call, "service_name": "echo"})
    assert answer.ok
    await first.logged("delivery", type="session.create", outcome="done")  # acknowledged: nobody opens it again
    await first.kill()
    await attacker.send(NAMES.sessions, call, "call.recipe", recipe_of(older, "ghost", at=datetime.now(UTC)).body)
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    await mcp.event("created", call_id=call, restored=True)
    await mcp.until(lambda: mcp.logged("delivery", type="call.recipe", outcome="dead_lettered", exchange=NAMES.unowned))
    assert not mcp.of("created", call_id="ghost")
    assert not mcp.logged("origin.unsigned_worker")
