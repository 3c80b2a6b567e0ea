"""Servers that answer carelessly, as callers see them: each has an answer or a code, and the events tell the truth."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.base import Json
from schemas.errors import ErrorCode, McpError, SessionDied, SessionNotFound, SessionsError
from schemas.ids import CallId, routing_key
from tests.harness import ROOT, Cluster, config
from tests.raw_amqp import RawPublisher, short

CARELESS = [sys.executable, str(ROOT / "tests" / "servers" / "careless_server.py")]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A careless server at a URL."""
    process = await asyncio.create_subprocess_exec(*CARELESS, "--http", stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    port = int(await asyncio.wait_for(process.stdout.readline(), 45))
    yield f"http://127.0.0.1:{port}/mcp"
    process.kill()
    await process.wait()


@pytest.fixture
async def careless(mcp: Cluster) -> Cluster:
    """A worker, and a session ``c`` of a careless server on it."""
    await mcp.start(config(services={"svc": {"command": CARELESS}}))
    await mcp.client.create("c", "svc")
    return mcp


async def test_results_that_models_do_not_expect_are_handed_on(careless: Cluster) -> None:
    async def result(text: str):
        return await careless.client.call_tool("c", "result", {"json": text})

    bare = await result('{"content": ["bare", null, {"type": "text", "text": "tail"}]}')
    assert (bare.content[:2], bare.text) == (["bare", None], "tail")
    odd = await result('{"content": [], "structuredContent": {"mean": NaN, "most": 1e999}}')
    assert odd.structured_content == {"mean": None, "most": None}
    assert json.loads(odd.text) == {"mean": None, "most": None}
    structured = await result('{"content": [{"type": "image"}], "structuredContent": {"balance": 12}}')
    assert structured.text == '{"balance":12}'
    both = await result('{"content": [{"type": "text", "text": ""}], "structuredContent": {"balance": 12}}')
    assert both.text == ""


async def test_numbers_that_json_does_not_have_are_null_in_events(mcp: Cluster) -> None:
    await mcp.start(config(services={"svc": {"command": CARELESS}}))
    body = b'{"session_id": "c", "service_name": "svc", "metadata": {"score": NaN}}'
    with RawPublisher(mcp.url) as raw:  # as some publishers write it; our client refuses it
        raw.publish(f"{mcp.prefix}.sessions", routing_key(CallId("c")).encode(), body, type=short(b"session.create"))
    created = await mcp.event("created")
    assert created.data["metadata"] == {"score": None}


async def test_a_forgotten_session_ends_and_who_names_a_service_gets_a_fresh_one(mcp: Cluster, url: str) -> None:
    await mcp.start(config(services={"svc": {"url": url}}))
    await mcp.client.create("c", "svc")
    await mcp.client.call_tool("c", "forget", {})
    answer = await mcp.client.call_tool("c", "ok", service_name="svc")
    assert answer.text == "ok"
    died = await mcp.event("died")
    assert died.data["reason"] == "process_exit"
    assert "no longer knows the session" in died.data["stderr"]
    assert len(mcp.of("created")) == 2
    await mcp.client.call_tool("c", "forget", {})
    with pytest.raises(SessionDied, match="no longer knows the session"):
        await mcp.client.call_tool("c", "ok")
    await mcp.until(lambda: len(mcp.of("died")) == 2)
    with pytest.raises(SessionNotFound):
        await mcp.client.call_tool("c", "ok")
    assert mcp.logged("placer.poison_message") == []


async def test_the_servers_own_words_reach_the_caller_at_once(careless: Cluster) -> None:
    with pytest.raises(McpError, match="no such customer"):
        await careless.client.call_tool(
            "c", "say", {"raw": '{"jsonrpc": "2.0", "id": $ID, "error": "no such customer"}'}
        )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
RESULTS = st.fixed_dictionaries(
    {}, optional={"content": JSON, "isError": JSON, "structuredContent": JSON, "_meta": JSON}
)
ERRORS = st.fixed_dictionaries({}, optional={"code": JSON, "message": JSON, "data": JSON})
ANSWERS = st.fixed_dictionaries({}, optional={"result": RESULTS | JSON, "error": ERRORS | JSON})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(ANSWERS, min_size=5, max_size=5))
async def test_whatever_a_server_answers_its_caller_has_a_result_or_a_code(
    careless: Cluster, answers: list[Json]
) -> None:
    for answer in answers:
        raw = json.dumps({"jsonrpc": "2.0", "id": "@", **answer}).replace('"@"', "$ID", 1)
        try:
            result = await careless.client.call_tool("c", "say", {"raw": raw}, timeout=1)
        except SessionsError as error:
            if error.code is not ErrorCode.MCP_ERROR:
                raise
        else:
            assert isinstance(result.content, list)
            assert isinstance(result.is_error, bool)
    assert (await careless.client.get("c")).is_alive
    assert careless.of("died") == []
