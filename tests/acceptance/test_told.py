"""What the log says: that and why a session was not opened or a tool call failed, and never a secret."""

import json
import sys
from typing import Any

import pytest

from schemas.errors import InvalidMessage, McpError, ServiceNotFound, SessionNotFound, StartFailed, ToolNotFound
from tests.harness import ECHO, ROOT, Cluster, config

SECRET = "hunter2-of-the-todo-api"
BROKEN = """
import os, sys
print("starting with", os.environ["TODO_API_KEY"], file=sys.stderr)
sys.exit("no todo list for key " + os.environ["TODO_API_KEY"])
"""


def services() -> dict:
    return {
        "echo": {"command": ECHO},
        "broken": {"command": [sys.executable, "-c", BROKEN], "env": {"TODO_API_KEY": SECRET}},
        "missing": {"command": ["no-such-program"]},
    }


async def test_each_failed_start_is_one_warning_with_its_code_and_its_reason(mcp: Cluster):
    worker = await mcp.start({"services": services()})
    await mcp.client.publish_call_event({"call_id": "c-1", "kind": "started"})
    broken = await worker.logged("session.rejected", call_id="c-1", service="broken")
    missing = await worker.logged("session.rejected", call_id="c-1", service="missing")
    assert (broken["level"], broken["code"], broken["exit_code"]) == ("warning", "START_FAILED", 1)
    assert broken["message"].startswith("broken: the server ended while it was starting (exit code 1): no todo list")
    assert (missing["code"], "exit_code" in missing) == ("START_FAILED", False)
    assert "no-such-program" in missing["message"]
    # The event says the same in the same words, and so does the line of the call.
    event = await mcp.event("rejected", service_name="broken")
    assert (event.data["code"], event.data["message"]) == (broken["code"], broken["message"])
    line = await worker.logged("delivery", type="call.started", outcome="opened_in_part")
    assert line["call_id"] == "c-1"

    with pytest.raises(StartFailed):
        await mcp.client.create("c-2", "missing")
    line = await worker.logged("delivery", type="session.create", outcome="failed")
    assert (line["call_id"], line["code"], line["service"]) == ("c-2", "START_FAILED", "missing")
    with pytest.raises(StartFailed):
        await mcp.client.call_tool("c-3", "counter", service_name="broken")
    line = await worker.logged("delivery", type="tools.call", outcome="failed")
    assert (line["code"], line["service"], line["tool"]) == ("START_FAILED", "broken", "counter")

    with pytest.raises(StartFailed):
        await mcp.client.service_tools("missing")
    line = await worker.logged("delivery", type="services.tools", outcome="failed")
    assert (line["code"], line["service"]) == ("START_FAILED", "missing")

    await worker.terminate()
    warned = [(one["call_id"], one["service"]) for one in worker.records if one["event"] == "session.rejected"]
    assert sorted(warned) == [("c-1", "broken"), ("c-1", "missing"), ("c-2", "missing"), ("c-3", "broken")]
    assert SECRET not in json.dumps(worker.records)
    assert SECRET not in json.dumps([event.data for event in mcp.events])


async def test_an_unknown_service_is_a_request_that_failed_whoever_notices_it(mcp: Cluster):
    worker = await mcp.start({"services": {"echo": {"command": ECHO}}})
    await mcp.client.create("c-1", "echo")
    for call_id in ("c-1", "c-2"):  # the owner of a call notices it, and the placer
        with pytest.raises(ServiceNotFound):
            await mcp.client.create(f"{call_id}#x", "weather")
        with pytest.raises(ServiceNotFound):
            await mcp.client.call_tool(call_id, "echo", service_name="weather")
        for kind in ("session.create", "tools.call"):
            line = await worker.logged("delivery", type=kind, call_id=call_id, outcome="failed")
            assert (line["code"], line["service"]) == ("SERVICE_NOT_FOUND", "weather")
    await worker.terminate()
    assert not [one for one in worker.records if one["event"] == "session.rejected"], "no start has failed"
    assert not [event for event in mcp.events if event.type == "mcp.session.rejected"]


async def test_a_failed_tool_call_is_told_with_its_code_tool_and_service(mcp: Cluster):
    worker = await mcp.start()
    await mcp.client.create("c", "echo")
    await mcp.client.call_tool("c", "counter")
    await mcp.client.call_tool("c", "fail", {"message": "the caller's number is +15550100"})
    for error, tool, arguments in (
        (McpError, "error", {"code": -32050, "data": {"number": "+15550100"}}),
        (ToolNotFound, "nonsense", {}),
    ):
        with pytest.raises(error):
            await mcp.client.call_tool("c", tool, arguments)
    with pytest.raises(SessionNotFound):
        await mcp.client.call_tool("nobody", "counter")
    told = {
        tool: await worker.logged("delivery", type="tools.call", tool=tool)
        for tool in ("counter", "fail", "error", "nonsense")
    }
    assert (await mcp.client.close("nobody")).closed is False
    assert (await worker.logged("delivery", type="session.close"))["outcome"] == "no_session"
    found = {tool: (one["outcome"], one.get("code"), one.get("service")) for tool, one in told.items()}
    assert found == {
        "counter": ("done", None, "echo"),
        "fail": ("tool_error", None, "echo"),
        "error": ("failed", "MCP_ERROR", "echo"),
        "nonsense": ("failed", "TOOL_NOT_FOUND", "echo"),
    }
    line = await worker.logged("delivery", type="tools.call", call_id="nobody", outcome="failed")
    assert line["code"] == "SESSION_NOT_FOUND"
    assert line["error"].startswith("there is no session 'nobody'")
    assert "nonsense" in told["nonsense"]["error"]
    assert "error" not in told["error"], "the server's words may be the caller's"
    assert "+15550100" not in json.dumps(worker.records)


async def test_what_an_open_view_asks_every_second_is_told_to_who_debugs_only(mcp: Cluster):
    workers = [await mcp.start(config(worker={"log_level": "debug"})) for _ in range(2)]
    await mcp.until(lambda: len(mcp.of("started")) == 2)
    await mcp.client.list_workers()
    await mcp.client.list_sessions()
    await mcp.client.worker_figures()
    asked = {"workers.list", "sessions.list", "workers.figures", "worker.sessions", "worker.figures"}

    def told() -> set[tuple[str, str]]:
        lines = [line for worker in workers for line in worker.records if line["event"] == "delivery"]
        return {(line["type"], line["level"]) for line in lines if line["type"] in asked}

    await mcp.until(lambda: {kind for kind, _ in told()} == asked)
    assert {level for _, level in told()} == {"debug"}


async def test_a_request_that_is_wrong_is_told_with_the_sentence_that_its_caller_got(mcp: Cluster):
    worker = await mcp.start()
    await mcp.client.create("c", "echo")
    body = {"session_id": "c", "name": "echo", "idempotency_key": "k" * 1000}
    with pytest.raises(InvalidMessage) as caught:
        await mcp.client.request("tools.call", body, call_id="c")
    told = await worker.logged("delivery", type="tools.call", call_id="c")
    assert caught.value.message in (told["error"], f"tools.call: {told['error']}")


@pytest.mark.parametrize("open_", ["alone", "beside"])
async def test_a_mistyped_service_is_unknown_also_where_the_session_exists(mcp: Cluster, open_: Any):
    await mcp.start()
    await mcp.client.create("c", "echo")
    with pytest.raises(ServiceNotFound, match="did you mean 'echo'"):
        await mcp.client.call_tool("c", "echo", service_name="ecko", open=open_)
    for if_exists in ("replace", "keep", "reject"):
        with pytest.raises(ServiceNotFound, match="did you mean 'echo'"):
            await mcp.client.create("c", "ecko", if_exists=if_exists)
    assert (await mcp.client.get("c")).service_name == "echo"


async def test_what_the_mcp_server_says_is_quoted_as_its_own(mcp: Cluster):
    await mcp.start()
    await mcp.client.create("c", "echo")
    with pytest.raises(McpError, match=r"^the MCP server answered prompts/get nonsense: ") as caught:
        await mcp.client.get_prompt("c", "nonsense")
    assert caught.value.message.endswith(caught.value.details["message"])


async def test_the_first_line_of_a_call_has_its_call_id(mcp: Cluster):
    worker = await mcp.start()
    path = ROOT / "consumer" / "demo" / "events" / "freeswitch_started.json"
    await mcp.client.publish_call_event(json.loads(path.read_text()))
    line = await worker.logged("delivery", type=None)
    assert (line["outcome"], line["source"], line["kind"]) == ("translated", "freeswitch_amqp", "started")
    created = await mcp.event("created")
    assert line["call_id"] == created.data["call_id"]


async def test_a_ready_worker_names_its_configuration_and_its_services(mcp: Cluster):
    worker = await mcp.start({"services": {"echo": {"command": ECHO}, "off": {"command": ECHO, "enabled": False}}})
    ready = await worker.logged("worker.ready")
    assert ready["configuration"] == str(mcp.folder / "worker-0.json")
    assert (ready["services"], ready["routes"]) == (["echo"], 0)


async def test_a_start_that_makes_a_caller_wait_is_a_warning_that_says_what_to_do(mcp: Cluster):
    worker = await mcp.start({"services": {"slow": {"command": [*ECHO, "--slow-start", "5.1"]}}})
    await mcp.client.create("c", "slow")
    told = await worker.logged("service.slow_start", service="slow")
    assert told["level"] == "warning"
    assert told["seconds"] > 5
    assert "keep servers warm" in told["hint"]
