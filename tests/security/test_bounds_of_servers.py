"""What an MCP server can cost a worker: its own session, and no more than the bounds say."""

import asyncio
import gzip
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from consumer.processes.client import catalogue
from consumer.processes.client.catalogue import MAX_BYTES, all_tools
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.loop_share import BURST, RATE, LoopShare
from consumer.processes.service import MCPService
from schemas.errors import McpError, SessionsError, StartFailed
from tests.harness import ECHO, Cluster, config

TALKER = [sys.executable, str(Path(__file__).with_name("talker.py"))]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["progress", "elicitation", "keys", "unheard"])
async def test_a_server_that_talks_without_end_costs_its_own_session_only(mcp: Cluster, kind: str):
    talker = {"command": [*TALKER, "--flood", kind], "call_timeout": 60}
    await mcp.start(config(services={"echo": {"command": ECHO}, "talker": talker}))
    await mcp.client.create("loud", "talker")
    await mcp.client.create("beside", "echo")

    async def hear(_: object) -> None:
        return None

    async def decline(_: object) -> Any:
        return {"action": "decline"}

    flooding = asyncio.create_task(
        mcp.client.call_tool("loud", "flood", timeout=60, on_progress=hear, on_question=decline)
    )
    longest = 0.0
    while not flooding.done():
        began = time.monotonic()
        assert (await mcp.client.call_tool("beside", "echo", {"text": "lives"})).text == "lives"
        longest = max(longest, time.monotonic() - began)
        await asyncio.wait({flooding}, timeout=0.05)
    with pytest.raises(SessionsError):
        await flooding
    died = await mcp.event("died", session_id="loud")
    assert "kept sending messages that nobody requested" in died.data["stderr"]
    assert (await mcp.client.get("beside")).is_alive
    assert longest < 3, f"a call beside it took {longest:.2f} s"  # it was twice the time of the flood


async def test_a_listing_without_end_is_cut(mcp: Cluster):
    endless = {"command": [*TALKER, "--pages", "20", "--page", str(3 << 20)]}
    worker = await mcp.start(config(services={"endless": endless}))
    before = psutil.Process(worker.process.pid).memory_info().rss
    for number in range(3):
        await mcp.client.create(f"c-{number}", "endless")
    told = await worker.logged("tools.listing_cut")
    assert told["pages"] < 5
    grown = psutil.Process(worker.process.pid).memory_info().rss - before
    assert grown < 150 << 20, f"the worker has grown by {grown >> 20} MiB"


async def test_equal_listings_are_kept_once_and_different_ones_only_up_to_a_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogue, "MAX_KEPT", 10_000)

    async def listing(word: str):
        async def page(_: str | None) -> dict:
            return {"tools": [{"name": "tool", "description": word * 4_000}]}

        return await all_tools(page, "one service")

    first, second = await listing("a"), await listing("a")
    assert first.tools is second.tools
    third = await listing("b")
    with pytest.raises(McpError, match="different tool lists"):
        await listing("c")
    del third
    assert len((await listing("c")).tools) == 1


async def test_a_tool_that_is_too_large_is_left_out():
    async def page(_: str | None) -> dict:
        return {"tools": [{"name": "small"}, {"name": "large", "description": "x" * MAX_BYTES}, {"name": "after"}]}

    assert [tool["name"] for tool in (await all_tools(page)).tools] == ["small"]


@asynccontextmanager
async def answering(body: bytes, *fields: str) -> AsyncIterator[int]:
    """A server that answers every request with this, whatever encoding was asked for."""
    head = "\r\n".join(["HTTP/1.1 200 OK", *fields, "Connection: close\r\n"])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        assert b"accept-encoding: identity" in asked.lower()
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def test_a_compressed_answer_is_not_read():
    body = gzip.compress(b" " * (100 << 20) + json.dumps({"jsonrpc": "2.0", "id": 1, "result": {}}).encode())
    async with answering(body, "Content-Type: application/json", "Content-Encoding: gzip") as port:
        client = MCPClient(MCPService(url=f"http://127.0.0.1:{port}/mcp", start_timeout=5))
        before = psutil.Process().memory_info().rss
        with pytest.raises(StartFailed, match="compressed"):
            await client.start()
        await client.stop()
        assert psutil.Process().memory_info().rss - before < 50 << 20


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(("many", "why"), [(1 << 20, "100000 JSON values"), (6 << 20, "4259840")])
async def test_an_answer_over_http_of_too_many_values_is_not_parsed(kind: str, many: int, why: str):
    body = b'{"jsonrpc": "2.0", "id": 1, "result": {"many": [' + b"1," * many + b"1]}}"
    if kind == "text/event-stream":
        body = b"event: message\r\ndata: " + body + b"\r\n\r\n"
    async with answering(body, f"Content-Type: {kind}") as port:
        client = MCPClient(MCPService(url=f"http://127.0.0.1:{port}/mcp", start_timeout=10))
        with pytest.raises(StartFailed, match=why):
            await client.start()
        await client.stop()


def test_a_share_of_the_loop_comes_back_with_time(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    share = LoopShare()
    share.spend(BURST / 2)
    assert share.rest == 0
    share.spend(BURST)
    assert share.rest == pytest.approx(BURST / 2 / RATE)
    for _ in range(3):
        now += 4
        share.spend(0.5)
    assert share.is_overdrawn
    now += 60
    share.spend(0)
    assert not share.is_overdrawn
    assert share.rest == 0
