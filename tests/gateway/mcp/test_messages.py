"""What a message gets: in both eras, as JSON or as a stream, and the error that its mistake has."""

import asyncio
import sys
from typing import Any

import httpx2
import pytest

from consumer.broker.lent_channels import MOST_LENT
from consumer.gateway import speech
from tests.gateway.conftest import Serve, served
from tests.gateway.mcp.wire import BOTH, JSON_ONLY, STATELESS, ask, call, events, message, modern, text
from tests.harness import ROOT, Cluster, config

EVERYTHING = config(services={"all": {"command": [sys.executable, str(ROOT / "tests/servers/everything_server.py")]}})
PATH = "/calls/c-1/all/mcp"
ECHO = "/calls/c-1/echo/mcp"


async def initialized(http: httpx2.AsyncClient, can: dict[str, Any], path: str = PATH) -> dict[str, str]:
    hello = {"protocolVersion": "2025-11-25", "capabilities": can, "clientInfo": {"name": "t", "version": "1"}}
    answer = await http.post(path, json=message("initialize", hello), headers=BOTH)
    return BOTH | {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}


async def test_progress_comes_on_the_stream_before_the_result(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(EVERYTHING)
    http = await serve()
    asked = message("tools/call", {"name": "test_tool_with_progress", "_meta": {"progressToken": "p-1"}})
    async with http.stream("POST", PATH, json=asked, headers=BOTH) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        heard = [one async for one in events(answer)]
    told = [one["params"] for one in heard[:-1]]
    assert [one["progress"] for one in told] == [0, 50, 100]
    assert {one["progressToken"] for one in told} == {"p-1"}
    assert heard[-1]["id"] == asked["id"]
    assert text(heard[-1]["result"]) == "done"


async def test_a_client_that_takes_json_only_gets_the_result_alone(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(EVERYTHING)
    http = await serve()
    asked = message("tools/call", {"name": "test_tool_with_progress", "_meta": {"progressToken": "p-1"}})
    answer = await http.post(PATH, json=asked, headers=JSON_ONLY)
    assert answer.headers["content-type"] == "application/json"
    assert text(answer.json()["result"]) == "done"


async def test_a_question_on_one_replica_is_answered_to_another_one(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(EVERYTHING)
    one, two = await serve(), await serve()
    headers = await initialized(one, {"elicitation": {}})
    asked = message("tools/call", {"name": "test_elicitation", "arguments": {"message": "who?"}})
    async with one.stream("POST", PATH, json=asked, headers=headers) as answer:
        heard = events(answer)
        question = await anext(heard)
        assert question["method"] == "elicitation/create"
        assert question["params"]["message"] == "who?"
        said = {"action": "accept", "content": {"username": "ann", "email": "ann@example.com"}}
        taken = await two.post(PATH, json={"jsonrpc": "2.0", "id": question["id"], "result": said}, headers=headers)
        assert taken.status_code == 202
        result = await anext(heard)
    assert "ann@example.com" in text(result["result"])
    assert (await two.post(PATH, json={"jsonrpc": "2.0", "id": "q", "result": {}}, headers=headers)).status_code == 400


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b'{"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', -32600),
    ],
)
async def test_what_is_no_message_is_refused(mcp: Cluster, serve: Serve, body: bytes, code: int) -> None:
    await mcp.start()
    http = await serve()
    answer = await http.post(ECHO, content=body, headers=JSON_ONLY | {"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert answer.json()["id"] is None


async def test_a_body_of_too_many_values_is_not_parsed(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve()
    answer = await http.post(ECHO, json=message("ping", {"x": [0] * 100_001}), headers=JSON_ONLY)
    assert answer.status_code == 413
    assert "100000 JSON values" in answer.json()["error"]["message"]


async def test_what_http_refuses_is_answered_in_json_rpc(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve(max_body=1024)
    ping = message("ping")
    for status, headers, body in (
        (406, {"accept": "text/html"}, ping),
        (413, {}, message("ping", {"x": "y" * 2000})),
        (421, {"host": "elsewhere.example.com"}, ping),
        (403, {"origin": "https://evil.example.com"}, ping),
    ):
        settings = {} if status != 421 else {"allowed_hosts": ["gateway.example.com"]}
        asked = http if status != 421 else await serve(**settings)
        answer = await asked.post(ECHO, json=body, headers=JSON_ONLY | headers)
        assert answer.status_code == status
        assert answer.json()["jsonrpc"] == "2.0"
        assert answer.json()["error"]["data"]["code"]
    for method in ("GET", "DELETE"):
        answer = await http.request(method, ECHO)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
    assert (await http.post(ECHO, json={"jsonrpc": "2.0", "method": "notifications/initialized"})).status_code == 202


async def test_a_tool_that_is_late_is_a_result_that_can_be_read_out(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    await call(await serve(), ECHO, "echo", text="up")
    hasty = await serve(call_timeout=0.5)
    late = await call(hasty, ECHO, "sleep", seconds=20)
    assert late["isError"] is True
    assert text(late) == speech.LATE
    assert late["_meta"] == {"mcp-sessions/code": "TOOL_TIMEOUT"}


async def test_mistakes_are_errors_of_json_rpc_with_their_code(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve()
    unknown = await ask(http, ECHO, "tools/call", {"name": "nothing_like_it"})
    assert unknown.status_code == 200
    assert unknown.json()["error"]["code"] == -32602
    assert unknown.json()["error"]["data"]["code"] == "TOOL_NOT_FOUND"
    assert (await ask(http, ECHO, "no/such/method")).json()["error"]["code"] == -32601
    assert (await ask(http, ECHO, "tools/call", {"name": 7})).json()["error"]["code"] == -32602
    nowhere = await ask(http, "/calls/c-1/nothing/mcp", "initialize")
    assert nowhere.status_code == 404
    assert nowhere.json()["error"]["data"]["code"] == "SERVICE_NOT_FOUND"


async def test_without_a_worker_nothing_was_executed_and_the_status_says_so(mcp: Cluster, serve: Serve) -> None:
    http = await serve(call_timeout=2)
    answer = await ask(http, ECHO, "tools/call", {"name": "echo"})
    assert answer.status_code in (200, 503), answer.text
    if answer.status_code == 200:  # the names are there from an earlier worker, and nobody knows
        assert answer.json()["result"]["isError"] is True
    else:
        assert answer.headers["retry-after"]


async def test_the_stateless_era_needs_no_session(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(EVERYTHING)
    http = await serve()
    body, headers = modern("server/discover")
    found = (await http.post(PATH, json=body, headers=headers)).json()["result"]
    assert STATELESS in found["supportedVersions"]
    assert found["resultType"] == "complete"
    assert "io.modelcontextprotocol/serverInfo" in found["_meta"]
    body, headers = modern("tools/call", {"name": "test_simple_text", "arguments": {}})
    answer = await http.post(PATH, json=body, headers=headers)
    assert "mcp-session-id" not in answer.headers
    assert answer.json()["result"]["resultType"] == "complete"
    body, headers = modern("tools/list")
    listed = (await http.post(PATH, json=body, headers=headers)).json()["result"]
    assert {"ttlMs", "cacheScope", "tools"} <= set(listed)


async def test_headers_of_the_stateless_era_repeat_the_body(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(EVERYTHING)
    http = await serve()
    given = {"name": "test_custom_header", "arguments": {"region": "eu"}}
    body, headers = modern("tools/call", given)
    wrong = [
        headers | {"mcp-method": "tools/list", "mcp-param-region": "eu"},
        headers | {"mcp-name": "another", "mcp-param-region": "eu"},
        headers | {"mcp-param-region": "us"},
        headers,
    ]
    for one in wrong:
        answer = await http.post(PATH, json=body, headers=one)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
    fits = await http.post(PATH, json=body, headers=headers | {"mcp-param-region": "eu"})
    assert text(fits.json()["result"]) == "region eu"
    unknown = await http.post(PATH, json=message("tools/list"), headers=BOTH | {"mcp-protocol-version": "1999-01-01"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, -32022)
    assert unknown.json()["error"]["data"]["requested"] == "1999-01-01"
    future = await http.post(PATH, json=body, headers=headers | {"mcp-protocol-version": "2099-01-01"})
    assert future.status_code == 400
    body, headers = modern("ping")
    assert (await http.post(PATH, json=body, headers=headers)).status_code == 404


async def test_two_hundred_clients_that_vanish_leave_nothing(mcp: Cluster) -> None:
    await mcp.start()
    async with served(mcp) as (gateway, http):
        await call(http, ECHO, "echo", text="up")
        before = asyncio.all_tasks()
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=http.base_url, auth=http.auth, limits=limits, timeout=30) as vanishing:
            nap = message("tools/call", {"name": "sleep", "arguments": {"seconds": 60}})
            asked = [asyncio.ensure_future(vanishing.post(ECHO, json=nap)) for _ in range(200)]
            async with asyncio.timeout(45):
                while gateway.in_flight.count < 200:
                    await asyncio.sleep(0.02)
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        async with asyncio.timeout(45):
            await gateway.in_flight.none_left()
            while not all(_reads_a_channel(one) for one in asyncio.all_tasks() - before):
                await asyncio.sleep(0.02)
        kept = len(asyncio.all_tasks() - before)
        assert kept <= MOST_LENT, "the channels that wait for the next publication"


def _reads_a_channel(task: "asyncio.Task[Any]") -> bool:
    return getattr(task.get_coro(), "__qualname__", "") == "Channel._reader"


async def test_the_server_itself_says_who_it_is(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(EVERYTHING)
    http = await serve()
    said = (await ask(http, PATH, "initialize", {"protocolVersion": "2099-01-01"})).json()["result"]
    assert said["protocolVersion"] == "2025-11-25"
    assert said["serverInfo"]["name"] == "everything"
    # It speaks the newer era, where servers tell of lists only those who listen.
    offered = {"tools": {}, "prompts": {}, "resources": {"subscribe": True}, "completions": {}, "logging": {}}
    assert said["capabilities"] == offered
    assert (await mcp.client.list_sessions()).sessions == {}


async def test_a_question_of_the_stateless_era_is_a_result_whose_answer_goes_anywhere(
    mcp: Cluster, serve: Serve
) -> None:
    await mcp.start(EVERYTHING)
    one, two = await serve(), await serve()
    given = {"name": "test_input_required_result_request_state", "arguments": {}}
    body, headers = modern("tools/call", given, {"elicitation": {}})
    asked = (await one.post(PATH, json=body, headers=headers)).json()["result"]
    assert asked["resultType"] == "input_required"
    ((name, question),) = asked["inputRequests"].items()
    assert question["method"] == "elicitation/create"
    answers = {name: {"action": "accept", "content": {"ok": True}}}
    again = given | {"inputResponses": answers, "requestState": asked["requestState"]}
    body, headers = modern("tools/call", again, {"elicitation": {}})
    assert text((await two.post(PATH, json=body, headers=headers)).json()["result"]) == "state-ok"


async def test_a_cancellation_reaches_the_server_by_any_replica(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    one, two = await serve(), await serve()
    headers = await initialized(one, {}, ECHO)
    await call(one, ECHO, "counter")  # what is asked while the server starts is cancelled before the server has it
    asked = message("tools/call", {"name": "sleep", "arguments": {"seconds": 60}})
    running = asyncio.ensure_future(one.post(ECHO, json=asked, headers=headers))
    told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": asked["id"]}}
    async with asyncio.timeout(45):
        while not running.done():
            assert (await two.post(ECHO, json=told, headers=headers)).status_code == 202
            await asyncio.wait({running}, timeout=0.2)
    assert (await running).json()["error"]["data"]["code"] == "TOOL_CANCELLED"
    assert len((await call(one, ECHO, "cancelled"))["structuredContent"]["ids"]) == 1


async def test_to_close_the_connection_is_to_cancel_in_the_stateless_era(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve()
    body, headers = modern("tools/call", {"name": "sleep", "arguments": {"seconds": 60}})
    running = asyncio.ensure_future(http.post(ECHO, json=body, headers=headers))
    await mcp.event("created", call_id="c-1")
    async with asyncio.timeout(45):  # it runs when the server has it
        while not (await call(http, ECHO, "counter"))["content"]:
            await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        while not (await call(http, ECHO, "cancelled"))["structuredContent"]["ids"]:
            await asyncio.sleep(0.05)
