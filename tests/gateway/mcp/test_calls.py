"""State hangs on the call: however often a client forgets its MCP session, it finds what it left."""

import asyncio
import sys
from typing import Any

import httpx2
import pytest
from mcp import Client

from tests.gateway.conftest import NOBODY, TOKEN_KEY, Serve, served
from tests.gateway.mcp.wire import JSON_ONLY, ask, call, message, text
from tests.gateway.test_cases import SERVICES
from tests.harness import ROOT, START, Cluster, config

TODO = config(services={"todo": SERVICES["todo"]})
PAIR = config(services={"todo": SERVICES["todo"], "todo2": SERVICES["todo2"]})


async def a_new_session(http: httpx2.AsyncClient, path: str, headers: dict[str, str]) -> dict[str, str]:
    """What Vapi does before each tool call: initialize, and the session's id from then on."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await http.post(path, json=message("initialize", hello), headers=JSON_ONLY | headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["result"]["protocolVersion"] == "2025-06-18"
    return headers | {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}


async def test_a_client_with_a_new_session_for_each_tool_call_keeps_its_list(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(TODO)
    http = await serve()
    first = await a_new_session(http, "/todo/mcp", {"x-call-id": "c-1"})
    assert text(await call(http, "/todo/mcp", "add_todo", first, text="milk")) == "added milk"
    second = await a_new_session(http, "/todo/mcp", {"x-call-id": "c-1"})
    assert first != second
    assert text(await call(http, "/todo/mcp", "list_todos", second)) == "milk"
    other = await a_new_session(http, "/todo/mcp", {"x-call-id": "c-2"})
    assert text(await call(http, "/todo/mcp", "list_todos", other)) == "nothing"


async def test_the_same_client_loses_its_list_at_a_plain_server() -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "tests/servers/http_server.py"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        async with asyncio.timeout(START):
            url = f"http://127.0.0.1:{int(await server.stdout.readline())}/mcp"
        for item in ("milk", "eggs"):
            async with Client(url, mode="legacy") as client:
                said: Any = (await client.call_tool("remember", {"item": item})).content[0]
                assert said.text == item
        async with httpx2.AsyncClient() as http:  # and who takes JSON only does not get that far
            assert (await http.post(url, json=message("initialize"), headers=JSON_ONLY)).status_code == 406
    finally:
        server.kill()
        await server.wait()


async def test_a_client_that_never_sends_its_session_finds_the_call_all_the_same(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(TODO)
    http = await serve()
    await call(http, "/calls/c-1/todo/mcp", "add_todo", text="milk")
    assert text(await call(http, "/calls/c-1/mcp", "list_todos")) == "milk"
    assert text(await call(http, "/todo/mcp", "list_todos", {"x-call-id": "c-1"})) == "milk"


async def test_the_sealed_session_remembers_the_call_for_a_client_that_names_it_once(
    mcp: Cluster, serve: Serve
) -> None:
    await mcp.start(TODO)
    http = await serve()
    session = await a_new_session(http, "/todo/mcp", {"x-call-id": "c-1"})
    await call(http, "/todo/mcp", "add_todo", session, text="milk")
    kept = {name: value for name, value in session.items() if name != "x-call-id"}
    assert text(await call(http, "/todo/mcp", "list_todos", kept)) == "milk"


async def test_what_a_service_is_starts_no_session(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(TODO)
    http = await serve()
    await a_new_session(http, "/todo/mcp", {})
    listed = (await ask(http, "/todo/mcp", "tools/list")).json()["result"]["tools"]
    assert {"name": "add_todo", "inputSchema": {"type": "object"}} in listed
    assert (await ask(http, "/todo/mcp", "ping")).json()["result"] == {}
    assert (await mcp.client.list_sessions()).sessions == {}
    refused = (await ask(http, "/todo/mcp", "tools/call", {"name": "list_todos"})).json()
    assert refused["error"]["data"] == {"code": "NO_CALL"}


async def test_no_client_waits_for_a_server_that_starts_slowly(mcp: Cluster) -> None:
    slow = [sys.executable, "-S", str(ROOT / "tests/servers/modern_server.py"), "--slow-start", "5"]
    await mcp.start(config(services={"slow": {"command": slow}}))
    async with served(mcp) as (gateway, http):
        async with asyncio.timeout(START):
            await gateway.learned()
        async with asyncio.timeout(4):
            await a_new_session(http, "/slow/mcp", {})
            assert "tools" in (await ask(http, "/slow/mcp", "tools/list")).json()["result"]
    assert (await mcp.client.list_sessions()).sessions == {}


async def test_another_replica_knows_the_session_and_joins_a_repetition(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(TODO)
    one, two = await serve(), await serve()
    session = await a_new_session(one, "/calls/c-1/todo/mcp", {})
    again = message("tools/call", {"name": "add_todo", "arguments": {"text": "milk"}})
    said = [
        (await http.post("/calls/c-1/todo/mcp", json=again, headers=JSON_ONLY | session)).json() for http in (one, two)
    ]
    assert said[0] == said[1]
    assert text(await call(two, "/calls/c-1/todo/mcp", "list_todos", session)) == "milk"


async def test_the_services_of_a_call_are_told_apart(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(PAIR)
    http = await serve()
    await call(http, "/calls/c-1/todo/mcp", "add_todo", text="milk")
    assert text(await call(http, "/calls/c-1/mcp", "list_todos")) == "milk"  # the only one that is open
    assert text(await call(http, "/calls/c-1/todo2/mcp", "list_todos")) == "nothing"
    answer = await ask(http, "/calls/c-1/mcp", "ping")
    assert answer.status_code == 400
    assert "todo, todo2" in answer.json()["error"]["message"]


async def test_the_id_of_a_call_may_have_any_letters(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(TODO)
    http = await serve()
    await call(http, "/calls/a%2Fb%23c%40d/todo/mcp", "add_todo", text="milk")
    assert text(await call(http, "/todo/mcp", "list_todos", {"x-call-id": "a/b#c@d"})) == "milk"


async def test_a_call_that_is_over_is_404(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(TODO)
    http = await serve()
    await call(http, "/calls/c-1/todo/mcp", "add_todo", text="milk")
    await mcp.client.publish_call_event({"call_id": "c-1", "kind": "ended"})
    await mcp.event("closed", call_id="c-1")
    answer = await ask(http, "/calls/c-1/todo/mcp", "tools/call", {"name": "list_todos"})
    assert answer.status_code == 404
    assert answer.json()["error"]["data"]["code"] == "SESSION_NOT_FOUND"


async def test_nothing_is_opened_where_only_telephony_may(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(TODO)
    http = await serve(open="never")
    answer = await ask(http, "/calls/c-1/todo/mcp", "tools/call", {"name": "list_todos"})
    assert answer.status_code == 404
    await mcp.client.publish_call_event({"call_id": "c-1", "kind": "started"})
    await mcp.event("created", call_id="c-1")
    assert text(await call(http, "/calls/c-1/todo/mcp", "list_todos")) == "nothing"


async def test_a_call_token_is_all_that_a_client_needs_and_reaches_nothing_else(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(PAIR)
    http = await serve(token_keys=[TOKEN_KEY])
    minted = await http.post("/calls/c-1/token", json={"services": ["todo"]})
    http.auth = NOBODY
    bearer = {"authorization": f"Bearer {minted.json()['token']}"}
    await call(http, "/todo/mcp", "add_todo", bearer, text="milk")
    assert text(await call(http, "/calls/c-1/mcp", "list_todos", bearer)) == "milk"
    # The header of somebody else's call does not lead there.
    assert text(await call(http, "/todo/mcp", "list_todos", bearer | {"x-call-id": "c-2"})) == "milk"
    for path, status in (("/calls/c-2/todo/mcp", 404), ("/calls/c-1/todo2/mcp", 403)):
        assert (await http.post(path, json=message("ping"), headers=JSON_ONLY | bearer)).status_code == status
    refused = await http.post("/todo/mcp", json=message("ping"), headers=JSON_ONLY)
    assert refused.status_code == 401
    assert refused.json()["error"]["data"]["code"] == "UNAUTHORIZED"


async def test_the_session_of_another_call_or_of_nobody_is_404(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(PAIR)
    http = await serve()
    session = await a_new_session(http, "/calls/c-1/todo/mcp", {})
    for path in ("/calls/c-2/todo/mcp", "/calls/c-1/todo2/mcp"):
        assert (await http.post(path, json=message("ping"), headers=JSON_ONLY | session)).status_code == 404
    forged = {"mcp-session-id": session["mcp-session-id"][:-3] + "AA="}
    answer = await http.post("/calls/c-1/todo/mcp", json=message("ping"), headers=JSON_ONLY | forged)
    assert answer.status_code == 404
    assert answer.json()["error"]["data"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("header", ["X-Session-Id", "x-chat-id"])
async def test_the_header_that_names_the_call_is_a_setting(mcp: Cluster, serve: Serve, header: str) -> None:
    await mcp.start(TODO)
    http = await serve(call_header=header)
    named: dict[str, Any] = {header: "c-1"}
    await call(http, "/todo/mcp", "add_todo", named, text="milk")
    assert text(await call(http, "/calls/c-1/todo/mcp", "list_todos")) == "milk"
