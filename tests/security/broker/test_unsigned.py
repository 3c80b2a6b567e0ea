"""What bears no name is no worker's, whoever sends it and whatever was sent before."""

from datetime import UTC, datetime

import pytest

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


async def test_nothing_without_a_name_is_believed_whatever_was_published_before(
    mcp: Cluster, node: PrivateBroker, attacker: Attacker
):
    """A presence that a worker could read, written to the exchange of the workers, once had all of it believed."""
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    await mcp.client.create("c-1", "echo")
    assert await attacker.is_refused(NAMES.workers, "", PresenceReport.type)
    info = WorkerInfo(
        worker_id=WorkerId("w-forged"),
        host="h",
        pid=1,
        version="0.0.9",
        state="ready",
        started_at=datetime.now(UTC),
        sessions=0,
        capacity=500,
        services={"echo": ServiceLoad()},
    )
    forged = PresenceReport(worker=info).model_dump_json().encode()
    strangers = [(None, b"x"), ("x", b"{}"), ("worker.endings", b"{}"), (PresenceReport.type, forged)]
    strangers += [(PresenceReport.type, b"x"), (PresenceRequest.type, b'{"worker_id": "w-1"}')]
    async with Attacker(url_of(node, "worker")) as stranger:
        for kind, body in strangers:
            await stranger.send(NAMES.workers, "", kind, body)
        await mcp.until(lambda: len(mcp.logged("peers.not_a_worker")) == len(strangers))
        recipe = recipe_of(WorkerId("w-forged"), "ghost", at=datetime.now(UTC))
        await stranger.send(NAMES.sessions, "ghost", recipe.type, recipe.body)
    await mcp.until(lambda: mcp.logged("delivery", type="call.recipe", outcome="dead_lettered"))
    answer = await attacker.ask(NAMES.sessions, "c-1", "call.ended", {"call_id": "c-1", "kind": "ended"})
    assert answer.error is not None
    assert answer.error.code is ErrorCode.INVALID_MESSAGE
    assert (await mcp.client.list_sessions()).sessions.keys() == {"c-1"}
    assert len((await mcp.client.list_workers()).workers) == 1


async def test_a_call_named_like_an_inbox_has_no_forged_recipe_believed(
    mcp: Cluster, node: PrivateBroker, attacker: Attacker
):
    """Its dead letters bear the key of an inbox, as if a dead worker had left them."""
    first = await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    made_up = WorkerId("made-1-abcdef")
    call = NAMES.inbox(made_up)
    answer = await attacker.ask(NAMES.sessions, call, "session.create", {"session_id": call, "service_name": "echo"})
    assert answer.ok
    await first.logged("delivery", type="session.create", outcome="done")
    await mcp.client.get(call)  # its acknowledgement has been sent: nobody opens it again
    await first.kill()
    await attacker.send(NAMES.sessions, call, "call.recipe", recipe_of(made_up, "ghost", at=datetime.now(UTC)).body)
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    await mcp.event("created", call_id=call, restored=True)
    await mcp.until(lambda: mcp.logged("delivery", type="call.recipe", outcome="dead_lettered", exchange=NAMES.unowned))
    assert not mcp.of("created", call_id="ghost")
