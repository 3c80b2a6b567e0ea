"""A request goes under its call's own key, and there is one place where that is seen to."""

import pytest

from consumer.client import SessionClient
from schemas.errors import ErrorCode
from schemas.ids import CallId, routing_key
from tests.broker_users import NAMES
from tests.security.broker.attacker import Attacker
from tests.security.broker.scene import Scene

pytestmark = pytest.mark.timeout(240)


async def test_a_request_under_the_key_of_another_call_is_refused_and_both_are_named(scene: Scene, attacker: Attacker):
    wrong = [
        (NAMES.sessions, "session.create", {"session_id": "live-0", "service_name": "echo"}),
        (NAMES.sessions, "session.close", {"session_id": "live-0"}),
        (NAMES.requests, "session.get", {"session_id": "live-0"}),
        (NAMES.requests, "session.touch", {"session_id": "live-0"}),
        (NAMES.requests, "tools.call", {"session_id": "live-0", "name": "echo", "service_name": "echo"}),
        (NAMES.sessions, "tools.call", {"session_id": "live-0", "name": "echo", "service_name": "echo"}),
    ]

    async def attack() -> None:
        for exchange, kind, body in wrong:
            for key in ("live-1", "nobody", "", "live-0#echo", "LIVE-0"):
                answer = await attacker.ask(exchange, key, kind, body)
                assert answer.error is not None, (kind, key)
                assert answer.error.code is ErrorCode.INVALID_MESSAGE
                assert answer.error.details == {"call_id": "live-0", "routing_key": key}
                assert repr(key) in answer.error.message
                assert "'live-0'" in answer.error.message

    await scene.undisturbed(attack)
    assert (await scene.client.close("live-0")).closed, "it is still open, and closes under its own key"


async def test_a_long_call_id_goes_under_its_hash(scene: Scene, attacker: Attacker):
    long = "l" * 240
    body = {"session_id": long, "service_name": "echo"}
    answer = await attacker.ask(NAMES.sessions, routing_key(CallId(long)), "session.create", body)
    assert answer.ok
    answer = await attacker.ask(NAMES.requests, long, "session.get", {"session_id": long})
    assert answer.error is not None
    assert routing_key(CallId(long)) in answer.error.message


@pytest.mark.parametrize("session_id", ["#todo", "", "#", "#a#b"])
async def test_an_id_without_a_call_is_refused(scene: Scene, attacker: Attacker, session_id: str):
    for exchange, kind in ((NAMES.sessions, "session.create"), (NAMES.sessions, "session.close")):
        body = {"session_id": session_id} | ({"service_name": "echo"} if kind == "session.create" else {})
        for key in ("", session_id, "live-0"):
            answer = await attacker.ask(exchange, key, kind, body)
            assert answer.error is not None
            assert answer.error.code is ErrorCode.INVALID_MESSAGE
            assert "session_id" in answer.error.message


async def test_the_client_that_comes_with_the_workers_finds_the_way_by_itself(scene: Scene):
    client: SessionClient = scene.client
    await client.create("one#echo", "echo")
    assert (await client.get("one#echo")).call_id == "one"
    assert (await client.close("one")).closed
