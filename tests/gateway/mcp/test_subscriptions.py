"""What servers tell of changes: on a stream that listens, and in the era with ``initialize`` while a tool call runs."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import Serve, served
from tests.gateway.mcp.test_messages import initialized
from tests.gateway.mcp.wire import BOTH, JSON_ONLY, Json, ask, call, events, message, modern
from tests.harness import ECHO, ROOT, Cluster, config

MODERN = [sys.executable, str(ROOT / "tests/servers/everything_server.py")]
SERVERS = {"old": (ECHO, "add_tool", "touch"), "new": (MODERN, "test_trigger_tool_change", "touch_resource")}
PATH = "/calls/c-1/all/mcp"
WATCHED = "test://watched-resource"
EVERYTHING: Json = {"toolsListChanged": True, "promptsListChanged": True, "resourceSubscriptions": [WATCHED]}

eras = pytest.mark.parametrize("server", ["old", "new"])


def services(server: str) -> dict[str, Any]:
    return config(services={"all": {"command": SERVERS[server][0]}})


@asynccontextmanager
async def listening(http: httpx2.AsyncClient, wants: Json) -> AsyncIterator[tuple[Json, AsyncIterator[Json]]]:
    """A stream that listens: what it will tell of, and what it tells."""
    body, headers = modern("subscriptions/listen", {"notifications": wants})
    async with http.stream("POST", PATH, json=body, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream"), await answer.aread()
        told = events(answer)
        first = await anext(told)
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": body["id"]}
        yield first["params"]["notifications"], told


async def method_of(told: AsyncIterator[Json]) -> str:
    async with asyncio.timeout(45):
        return str((await anext(told))["method"])


@eras
async def test_a_stream_tells_what_changes_whichever_replica_the_change_comes_by(
    mcp: Cluster, serve: Serve, server: str
) -> None:
    await mcp.start(services(server))
    one, two = await serve(), await serve()
    _, add_tool, touch = SERVERS[server]
    async with listening(one, EVERYTHING) as (honoured, told):
        expected = {"toolsListChanged": True, "resourceSubscriptions": [WATCHED]}
        assert honoured == expected | ({"promptsListChanged": True} if server == "new" else {})
        await call(two, PATH, add_tool, name="more")
        assert await method_of(told) == "notifications/tools/list_changed"
        await call(two, PATH, touch, uri=WATCHED)
        async with asyncio.timeout(45):
            updated = await anext(told)
        assert updated["method"] == "notifications/resources/updated"
        assert updated["params"]["uri"] == WATCHED


@eras
async def test_a_stream_tells_nothing_that_its_client_does_not_want(mcp: Cluster, serve: Serve, server: str) -> None:
    await mcp.start(services(server))
    http = await serve()
    _, add_tool, touch = SERVERS[server]
    async with listening(http, {"resourceSubscriptions": [WATCHED]}) as (_, told):
        await call(http, PATH, add_tool, name="more")
        await mcp.event("list_changed", session_id="c-1")
        await call(http, PATH, touch, uri="test://another")
        await call(http, PATH, touch, uri=WATCHED)
        assert await method_of(told) == "notifications/resources/updated"


async def test_a_stream_outlives_a_killed_worker_and_ends_with_the_call(mcp: Cluster, serve: Serve) -> None:
    worker = await mcp.start(services("new"))
    http = await serve()
    async with listening(http, EVERYTHING) as (_, told):
        await mcp.start(services("new"))
        await worker.kill()
        everything = {await method_of(told) for _ in range(3)}
        assert everything == {
            "notifications/tools/list_changed",
            "notifications/prompts/list_changed",
            "notifications/resources/updated",
        }
        await call(http, PATH, "touch_resource", uri=WATCHED)  # the new session's server knows of the stream
        assert await method_of(told) == "notifications/resources/updated"
        await mcp.client.publish_call_event({"call_id": "c-1", "kind": "ended"})
        async with asyncio.timeout(45):
            ended = await anext(told)
        assert ended["result"]["resultType"] == "complete"
        with pytest.raises(StopAsyncIteration):
            await anext(told)


async def test_who_listens_is_no_request_in_flight_and_is_told_when_the_gateway_leaves(mcp: Cluster) -> None:
    await mcp.start(services("new"))
    async with served(mcp, max_in_flight=1) as (gateway, http), listening(http, EVERYTHING) as (_, told):
        await call(http, PATH, "test_simple_text")
        assert await gateway.leave(5)
        async with asyncio.timeout(45):
            assert "result" in await anext(told)


async def test_a_filter_that_is_none_and_a_client_without_a_stream_are_refused(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(services("new"))
    http = await serve()
    for wants in ({"resourceSubscriptions": "all"}, {"resourceSubscriptions": [7]}, None):
        body, headers = modern("subscriptions/listen", {"notifications": wants})
        refused = await http.post(PATH, json=body, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32602)
    body, headers = modern("subscriptions/listen", {"notifications": EVERYTHING})
    assert (await http.post(PATH, json=body, headers=headers | JSON_ONLY)).status_code == 406
    closed = await serve(open="never")
    assert (await closed.post(PATH, json=body, headers=headers)).status_code == 404
    assert (await mcp.client.list_sessions()).sessions == {}


async def heard_on(http: httpx2.AsyncClient, headers: Json, tool: str, **arguments: Any) -> list[Json]:
    """What a tool call tells on its stream."""
    asked = message("tools/call", {"name": tool, "arguments": arguments})
    async with http.stream("POST", PATH, json=asked, headers=headers) as answer:
        if answer.headers["content-type"] == "application/json":
            await answer.aread()
            return [answer.json()]
        return [one async for one in events(answer)]


async def test_the_older_era_hears_changes_and_logs_while_a_tool_call_runs(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(services("old"))
    http = await serve()
    headers = await initialized(http, {}, PATH)
    changed, _ = await heard_on(http, headers, "add_tool", name="more")
    assert changed["method"] == "notifications/tools/list_changed"
    assert len(await heard_on(http, headers, "touch", uri="note://one")) == 1
    subscribed = await http.post(PATH, json=message("resources/subscribe", {"uri": "note://one"}), headers=headers)
    assert subscribed.json()["result"] == {}
    updated, _ = await heard_on(http, headers, "touch", uri="note://one")
    assert updated["params"] == {"uri": "note://one"}
    assert (await ask(http, PATH, "resources/unsubscribe", {"uri": "note://one"})).json()["result"] == {}
    assert len(await heard_on(http, headers, "touch", uri="note://one")) == 1
    assert (await ask(http, PATH, "logging/setLevel", {"level": "notice"})).json()["result"] == {}
    logged, _ = await heard_on(http, headers, "log", text="hello")
    assert logged["params"] == {"level": "notice", "logger": "echo", "data": {"text": "hello"}}


async def test_who_is_told_of_other_tools_finds_them_and_nobody_else_does(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(services("old"))
    http = await serve()

    async def tools(path: str) -> set[str]:
        return {one["name"] for one in (await ask(http, path, "tools/list")).json()["result"]["tools"]}

    assert "more" not in await tools(PATH)
    assert (await mcp.client.list_sessions()).sessions == {}
    await call(http, PATH, "add_tool", name="more")
    assert "more" in await tools(PATH)
    assert "more" not in await tools("/calls/c-2/all/mcp")
    assert "more" not in await tools("/all/mcp")
    assert list((await mcp.client.list_sessions()).sessions) == ["c-1"]


@eras
async def test_the_newer_era_hears_logs_from_the_level_that_it_names(mcp: Cluster, serve: Serve, server: str) -> None:
    await mcp.start(services(server))
    http = await serve()
    tool = {"old": "log", "new": "test_tool_with_logging"}[server]
    level = "io.modelcontextprotocol/logLevel"
    told = {}
    for wanted in ("debug", "critical", None):
        meta = {} if wanted is None else {"_meta": {level: wanted}}
        body, headers = modern("tools/call", {"name": tool, "arguments": {}, **meta})
        async with http.stream("POST", PATH, json=body, headers=headers) as answer:
            if answer.headers["content-type"] == "application/json":
                told[wanted] = set[str]()
            else:
                told[wanted] = {one["method"] async for one in events(answer) if "method" in one}
    assert told["debug"] == {"notifications/message"}
    assert told[None] == set()
    assert told["critical"] == set()


@eras
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("prompts/list", {}),
        ("resources/list", {}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": "pa"}}),
    ],
)
async def test_the_first_use_of_a_call_opens_its_session(
    mcp: Cluster, serve: Serve, server: str, method: str, params: Json
) -> None:
    await mcp.start(services(server))
    http, closed = await serve(), await serve(open="never")
    body, headers = (message(method, params), BOTH) if server == "old" else modern(method, params)
    refused = await closed.post(PATH, json=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["data"]["code"]) == (404, "SESSION_NOT_FOUND")
    found = await http.post(PATH, json=body, headers=headers)
    if (server, method) == ("old", "prompts/list"):
        assert [one["name"] for one in found.json()["result"]["prompts"]] == ["greet"]
    assert "result" in found.json(), found.text
    assert list((await mcp.client.list_sessions()).sessions) == ["c-1"]
    await mcp.client.publish_call_event({"call_id": "c-1", "kind": "ended"})
    await mcp.event("closed", call_id="c-1")
    assert (await http.post(PATH, json=body, headers=headers)).status_code == 404


async def test_a_gateway_in_the_workers_process_tells_what_changes_as_well(mcp: Cluster) -> None:
    worker = await mcp.start(services("new"), "--gateway", MCP_SESSIONS_GATEWAY_PORT="0")
    port = (await worker.logged("gateway.ready"))["port"]
    http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)
    async with http, listening(http, EVERYTHING) as (_, told):
        await call(http, PATH, "touch_resource", uri=WATCHED)
        assert await method_of(told) == "notifications/resources/updated"
