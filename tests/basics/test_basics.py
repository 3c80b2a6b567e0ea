"""What workers do for calls, one concept a test: the place to begin to read."""

import json
import signal

from consumer.client import Answer
from tests.harness import ECHO, Cluster, config


async def test_a_call_gets_a_session(mcp: Cluster):
    await mcp.start()
    await mcp.client.publish_call_event({"call_id": "c-1", "kind": "started", "from": "+15550100"})
    created = await mcp.event("created", session_id="c-1")
    assert created.data["service_name"] == "echo"
    assert created.data["metadata"]["call"]["from"] == "+15550100"


async def test_a_route_chooses_the_service(mcp: Cluster):
    services = {"sales": {"command": ECHO}, "support": {"command": ECHO}}
    routes = [{"match": {"to": "+1555*"}, "services": ["support"]}, {"services": ["sales"]}]
    await mcp.start(config(services=services, routes=routes))
    await mcp.client.publish_call_event({"call_id": "c-1", "kind": "started", "to": "+15550199"})
    created = await mcp.event("created", session_id="c-1")
    assert created.data["service_name"] == "support"


async def test_a_tool_is_called(mcp: Cluster):
    await mcp.start()
    await mcp.client.create("c-1", "echo")
    answer = await mcp.client.call_tool("c-1", "echo", {"text": "hello"})
    assert answer.text == "hello"


async def test_a_repeated_key_executes_a_tool_once(mcp: Cluster):
    await mcp.start()
    await mcp.client.create("c-1", "echo")
    for _ in range(2):
        answer = await mcp.client.call_tool("c-1", "counter", idempotency_key="once")
        assert answer.structured_content == {"count": 1}


async def test_an_idle_session_expires_when_it_is_due(mcp: Cluster):
    await mcp.start(config(session={"cleanup_interval": 60}))
    await mcp.client.create("c-1", "echo", timeout=0.3)
    expired = await mcp.event("expired", session_id="c-1")
    assert expired.data["reason"] == "idle"


async def test_the_end_of_a_call_closes_its_session(mcp: Cluster):
    await mcp.start()
    await mcp.client.create("c-1", "echo")
    await mcp.client.publish_call_event({"call_id": "c-1", "kind": "ended"})
    closed = await mcp.event("closed", session_id="c-1")
    assert closed.data["reason"] == "call_ended"


async def test_a_second_service_is_a_session_of_its_own(mcp: Cluster):
    await mcp.start(config(services={"echo": {"command": ECHO}, "other": {"command": ECHO}}))
    for service, session in (("echo", "c-1"), ("other", "c-1#other")):
        answer = await mcp.client.call_tool("c-1", "counter", service_name=service)
        assert (answer.session_id, answer.structured_content) == (session, {"count": 1})


async def test_the_calls_of_a_killed_worker_come_back_on_another(mcp: Cluster):
    first = await mcp.start(config(worker={"grace": 2}))
    for call in ("c-1", "c-2", "c-3"):
        await mcp.client.create(call, "echo")
    second = await mcp.start(config(worker={"grace": 2}))
    await first.kill()
    await mcp.until(lambda: len(mcp.of("created", worker_id=second.worker_id, restored=True)) == 3)
    assert len(mcp.of("lost", reason="worker_gone")) == 3
    assert (await mcp.client.call_tool("c-2", "echo", {"text": "still here"})).text == "still here"


async def test_a_start_without_room_is_rejected(mcp: Cluster):
    await mcp.start(config(session={"max_total_sessions": 1}, worker={"admission_wait": 0.1}))
    await mcp.client.create("c-1", "echo")
    await mcp.client.publish_call_event({"call_id": "c-2", "kind": "started"})
    rejected = await mcp.event("rejected", session_id="c-2")
    assert rejected.data["code"] == "CAPACITY"


async def test_the_caller_answers_a_question_of_the_server(mcp: Cluster):
    await mcp.start()
    await mcp.client.create("c-1", "echo")
    large: Answer = {"action": "accept", "content": {"answer": "large"}}
    answer = await mcp.client.call_tool("c-1", "ask", {"question": "Which size?"}, on_question=lambda _: large)
    assert answer.structured_content["reply"]["result"] == large


async def test_a_worker_that_drains_hands_its_calls_over(mcp: Cluster):
    first = await mcp.start()
    await mcp.client.create("c-1", "echo", metadata={"tenant": "acme"})
    second = await mcp.start()
    assert await first.terminate() == 0
    await mcp.event("closed", session_id="c-1", reason="worker_shutdown")
    restored = await mcp.event("created", session_id="c-1", worker_id=second.worker_id, restored=True)
    assert restored.data["metadata"] == {"tenant": "acme"}
    assert (await mcp.client.call_tool("c-1", "echo", {"text": "still here"})).text == "still here"


async def test_a_reloaded_configuration_holds_for_new_calls(mcp: Cluster):
    worker = await mcp.start()
    await mcp.client.create("before", "echo")
    (mcp.folder / "worker-0.json").write_text(json.dumps({"services": {"other": {"command": ECHO}}}))
    worker.process.send_signal(signal.SIGHUP)
    await worker.logged("settings.reloaded")
    await mcp.client.create("after", "other")
    assert (await mcp.client.call_tool("before", "echo", {"text": "still here"})).text == "still here"
