"""Calls: results as the server wrote them, deadlines, progress, and what can go wrong."""

import asyncio
import time
from typing import Any

import psutil
import pytest
import structlog

from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.stdio import stderr_log
from consumer.sessions.dialogue import Dialogue
from schemas.errors import InvalidMessage, McpError, ToolNotFound, ToolTimeout

from .helpers import Start, structured, text


async def test_a_result_is_handed_on_as_it_came(start: Start) -> None:
    client = await start()
    result = await client.call_tool("content")
    assert [part["type"] for part in result["content"]] == [
        *("text", "image", "audio", "resource_link", "resource", "from-the-future"),
    ]
    assert result["content"][5]["anything"] == [1, 2.5, None, {"x": "y"}]
    assert result["structuredContent"] == {"answer": 42, "nested": {"list": [1, 2, 3]}}
    assert result["_meta"] == {"example.com/trace": "abc"}
    assert result["unknownField"] is True


async def test_state_lasts_for_the_session(start: Start) -> None:
    one, other = await start(), await start()
    for expected in (1, 2, 3):
        assert structured(await one.call_tool("counter")) == {"count": expected}
    assert structured(await other.call_tool("counter")) == {"count": 1}


async def test_a_result_with_is_error_is_a_result(start: Start) -> None:
    client = await start()
    result = await client.call_tool("fail", {"message": "no such flight"})
    assert result["isError"] is True
    assert text(result) == "no such flight"


async def test_a_json_rpc_error_is_an_error_at_once(start: Start) -> None:
    client = await start()
    started = time.monotonic()
    with pytest.raises(McpError, match="refused") as caught:
        await client.call_tool("error", {"code": -32000, "message": "refused", "data": {"why": 1}})
    assert caught.value.details == {"code": -32000, "message": "refused", "data": {"why": 1}}
    assert time.monotonic() - started < 10
    assert client.is_alive


async def test_meta_travels(start: Start) -> None:
    client = await start()
    seen = structured(await client.call_tool("meta", meta={"call_id": "c1", "progressToken": "mine"}))
    assert seen["meta"]["call_id"] == "c1"


async def test_an_unknown_tool_is_said_without_asking_the_server(start: Start) -> None:
    client = await start()
    with pytest.raises(ToolNotFound, match="no tool 'nope'; it has: add_tool"):
        await client.call_tool("nope")
    with pytest.raises(ToolNotFound, match="no tool 'ad_tool'; did you mean 'add_tool'"):
        await client.call_tool("ad_tool")


async def test_a_tool_that_was_announced_later_is_found(start: Start) -> None:
    client = await start()
    await client.call_tool("add_tool", {"name": "neu"})
    assert text(await client.call_tool("neu", {"text": "da"})) == "da"
    assert "neu" in {tool["name"] for tool in await client.get_tools()}


async def test_a_tool_that_a_modern_server_has_added_is_found(start: Start) -> None:
    client = await start("modern_server")
    await client.call_tool("add_tool", {"name": "neu"})
    assert text(await client.call_tool("neu", {"text": "da"})) == "da"


async def test_many_who_look_for_a_new_tool_list_once(start: Start) -> None:
    client = await start()
    await client.call_tool("add_tool", {"name": "neu"})
    assert (
        len({text(r) for r in await asyncio.gather(*(client.call_tool("neu", {"text": "x"}) for _ in range(20)))}) == 1
    )


@pytest.mark.parametrize("server", ["echo_server", "modern_server"])
async def test_a_call_that_runs_late_is_cancelled_at_the_server(start: Start, server: str) -> None:
    client = await start(server)
    started = time.monotonic()
    with pytest.raises(ToolTimeout, match="sleep"):
        await client.call_tool("sleep", {"seconds": 30}, timeout=0.2)
    assert time.monotonic() - started < 20
    async with asyncio.timeout(45):
        while not structured(await client.call_tool("cancelled"))["ids"]:
            await asyncio.sleep(0.01)


async def test_the_service_says_how_long_a_call_may_take(start: Start) -> None:
    client = await start(call_timeout=0.2)
    with pytest.raises(ToolTimeout, match=r"0\.2 s"):
        await client.call_tool("sleep", {"seconds": 30})


async def test_a_cancelled_caller_cancels_at_the_server(start: Start) -> None:
    client = await start()
    call = asyncio.create_task(client.call_tool("sleep", {"seconds": 30}))
    await client.call_tool("echo")  # behind it in the pipe
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert structured(await client.call_tool("cancelled"))["ids"]


async def test_calls_overlap(start: Start) -> None:
    client = await start()
    started = time.monotonic()
    await asyncio.gather(*(client.call_tool("sleep", {"seconds": 1}) for _ in range(20)))
    assert time.monotonic() - started < 15  # one after the other would take twenty


async def test_progress_is_told_in_order(start: Start) -> None:
    client = await start()
    seen: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    await client.call_tool("progress", {"steps": 50}, dialogue=Dialogue(on_progress=on_progress))
    assert seen == [(step, 50, f"step {step}") for step in range(1, 51)]
    await client.call_tool("progress", {"steps": 3})
    assert len(seen) == 50


async def test_a_progress_callback_that_fails_harms_nobody(start: Start) -> None:
    client = await start()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        raise ValueError("mine")

    assert (
        text(await client.call_tool("progress", {"steps": 3}, dialogue=Dialogue(on_progress=on_progress))) == "3 steps"
    )


async def test_a_hostile_output_schema_does_not_block_the_loop(start: Start) -> None:
    client = await start()
    started = time.monotonic()
    assert structured(await client.call_tool("hostile"))["word"].endswith("!")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("size", [1_000_000, 4_000_000])
async def test_large_results_come_whole(start: Start, size: int) -> None:
    client = await start()
    assert len(text(await client.call_tool("big", {"size": size}))) == size


async def test_large_arguments_arrive_whole(start: Start) -> None:
    client = await start()
    words = "y" * 4_000_000
    assert text(await client.call_tool("echo", {"text": words})) == words


async def test_what_is_no_utf8_is_replaced(start: Start) -> None:
    client = await start()
    assert text(await client.call_tool("invalid_utf8")) == "a\ufffdz"
    assert text(await client.call_tool("surrogate")) == "a\ufffdz"


async def test_arguments_that_are_no_utf8_are_refused(start: Start) -> None:
    client = await start()
    with pytest.raises(InvalidMessage):
        await client.call_tool("echo", {"text": "\ud800"})
    assert text(await client.call_tool("echo", {"text": "ok"})) == "ok"


async def test_nonsense_among_the_answers_is_skipped(start: Start) -> None:
    client = await start()
    await client.call_tool("stdout", {"line": "debug: \xff", "times": 500})
    assert text(await client.call_tool("echo", {"text": "ok"})) == "ok"


async def test_a_flood_on_stderr_leaves_its_end(start: Start) -> None:
    client = await start()
    await client.call_tool("stderr", {"size": 262_144, "last": "last words"})
    assert client.process is not None
    async with asyncio.timeout(45):
        while client.process.stderr.last_line() != "last words":
            await asyncio.sleep(0.01)
    assert len(client.process.stderr.text()) <= 16 * 1024


async def test_the_log_has_what_a_living_server_writes_to_stderr_at_debug(start: Start) -> None:
    client = await start()
    with structlog.testing.capture_logs() as logs:
        await client.call_tool("stderr", {"size": 2_000, "last": "Traceback: no such flight"})
        assert client.process is not None
        async with asyncio.timeout(45):
            while not any(line["line"].endswith("no such flight") for line in _of_stderr(logs)):
                await asyncio.sleep(0.01)
    assert {line["log_level"] for line in _of_stderr(logs)} == {"debug"}
    assert {(line["service"], line["pid"]) for line in _of_stderr(logs)} == {("svc", client.process.pid)}
    assert max(len(line["line"]) for line in _of_stderr(logs)) <= stderr_log.MAX_LINE


def _of_stderr(logs: list[Any]) -> list[Any]:
    return [line for line in logs if line["event"] == "process.stderr"]


def test_a_flood_on_stderr_is_counted_and_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(stderr_log, "monotonic", lambda: now)
    told = stderr_log.StderrLog("echo")
    with structlog.testing.capture_logs() as logs:
        told.feed(b"half a li", 7)
        assert logs == []
        told.feed(b"ne\n\n", 7)
        told.feed(b"more\n" * 1000 + b"last\n", 7)
        assert len(logs) == stderr_log.MAX_LINES
        told.feed(b"too many\n", 7)
        now += 1.0
        told.feed(b"after\n", 7)
    lines = [(line["line"], line.get("left_out")) for line in logs]
    assert lines[:2] == [("half a line", None), ("more", 1002 - stderr_log.MAX_LINES)]
    assert lines[-2:] == [("last", None), ("after", 1)]


async def test_a_server_request_with_the_id_of_our_call_confuses_nobody(start: Start) -> None:
    client = await start("echo_server", "--collide")
    for word in ("a", "b"):
        call = client.call_tool("sleep", {"seconds": 0}) if word == "a" else client.call_tool("progress", {"steps": 1})
        async with asyncio.timeout(45):
            assert (await call)["content"]


async def test_a_server_that_does_not_read_costs_a_timeout_and_no_hang(start: Start) -> None:
    client = await start()
    assert client.process is not None
    server = psutil.Process(client.process.pid)
    server.suspend()
    try:
        for _ in range(3):
            with pytest.raises(ToolTimeout):
                await client.call_tool("echo", {"text": "x" * 10_000_000}, timeout=0.3)
        started = time.monotonic()
        with pytest.raises(ToolTimeout, match="does not read its input"):
            await client.call_tool("echo", {"text": "x"}, timeout=30)
        assert time.monotonic() - started < 20
    finally:
        server.resume()
    async with asyncio.timeout(45):
        while client.process.unsent:
            await asyncio.sleep(0.01)
    assert text(await client.call_tool("echo", {"text": "again"})) == "again"


async def test_resources_and_prompts(start: Start) -> None:
    client = await start()
    assert (await client.call_method("resources/list"))["resources"][0]["uri"] == "note://one"
    assert (await client.call_method("resources/templates/list"))["resourceTemplates"]
    read = await client.call_method("resources/read", {"uri": "note://one"})
    assert read["contents"][0]["text"] == "text of note://one"
    assert (await client.call_method("prompts/list"))["prompts"][0]["name"] == "greet"
    got = await client.call_method("prompts/get", {"name": "greet", "arguments": {"who": "Ada"}})
    assert got["messages"][0]["content"]["text"] == "Hello Ada"
    with pytest.raises(McpError, match="Method not found") as caught:
        await client.call_method("tasks/list", {})
    assert caught.value.details["code"] == -32601


async def test_modern_progress(start: Start) -> None:
    client: MCPClient = await start("modern_server")
    seen: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    await client.call_tool("progress", {"steps": 3}, dialogue=Dialogue(on_progress=on_progress))
    assert seen == [1, 2, 3]
