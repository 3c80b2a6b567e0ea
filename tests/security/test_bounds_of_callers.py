"""What callers can make a worker keep: bytes, time and requests are bounded, and who hits a bound is told."""

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path

import psutil
import pytest

from consumer.calls.requests.idempotency import Answers, KeptAnswer, Shelf
from schemas.errors import Capacity, InvalidMessage, SessionsError, ToolTimeout
from tests import programs
from tests.calls.asking import ask_for, once
from tests.harness import ECHO, ROOT, Cluster, config

FLOODER = Path(__file__).with_name("flooder.py")
PATHS = os.environ | {"PYTHONPATH": str(ROOT)}

MUTE = """
import asyncio
from mcp.server.mcpserver import MCPServer
server = MCPServer("mute", log_level="ERROR")

@server.tool()
async def wait() -> str:
    await asyncio.sleep(3600)
    return "never"

@server.prompt()
async def never() -> str:
    await asyncio.sleep(3600)
    return "never"

server.run()
"""
WEEK = 604_800


async def test_requests_under_a_timeout_of_a_week_are_few_and_end_when_the_service_says(mcp: Cluster):
    service = {"command": [sys.executable, "-c", MUTE], "call_timeout": 1, "max_call_timeout": 2, "max_calls": 4}
    await mcp.start(config(services={"mute": service, "echo": {"command": ECHO}}))
    await mcp.client.create("c", "mute", timeout=2)
    await mcp.client.create("beside", "echo")

    async def get(number: int) -> SessionsError:
        type_ = "tools.call" if number % 2 else "prompts.get"
        body = {"session_id": "c", "name": "wait" if number % 2 else "never", "timeout": WEEK}
        with pytest.raises(SessionsError) as caught:
            await mcp.client.request(type_, body, call_id="c", reply_timeout=WEEK)
        return caught.value

    errors = await asyncio.wait_for(asyncio.gather(*map(get, range(200))), 30)
    assert sum(isinstance(error, Capacity) for error in errors) == 196
    assert sum(isinstance(error, ToolTimeout) for error in errors) == 4
    assert (await mcp.client.call_tool("beside", "echo", {"text": "lives"})).text == "lives"
    await mcp.event("expired", session_id="c")  # its idle time has come all the same


async def test_a_worker_holds_only_so_many_requests(mcp: Cluster):
    service = {"command": [sys.executable, "-c", MUTE], "call_timeout": 2, "max_call_timeout": 2, "max_calls": 100}
    await mcp.start(config(services={"mute": service}, worker={"max_requests": 3}))
    await mcp.client.create("c", "mute")
    calls = [mcp.client.call_tool("c", "wait") for _ in range(10)]
    errors = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 45)
    assert sum(isinstance(error, Capacity) and "max_requests" in str(error) for error in errors) == 7
    assert (await mcp.client.get("c")).is_alive


@pytest.mark.parametrize("many", [2_000, pytest.param(20_000, marks=pytest.mark.long)])
@pytest.mark.timeout(300)
async def test_a_flood_of_requests_for_one_call_leaves_other_calls_and_the_idle_timeout_alone(mcp: Cluster, many: int):
    """A hundred are in flight at any time; how long a call of another client takes meanwhile is written out."""
    service = {"command": [sys.executable, "-c", MUTE], "call_timeout": 5, "max_call_timeout": 5, "max_calls": 4}
    worker = await mcp.start(config(services={"mute": service, "echo": {"command": ECHO}}))
    await mcp.client.create("c", "mute", timeout=15)
    await mcp.client.create("beside", "echo")
    process = psutil.Process(worker.process.pid)
    before = process.memory_info().rss

    async def beside() -> float:
        began = time.monotonic()
        assert (await mcp.client.call_tool("beside", "echo", {"text": "lives"})).text == "lives"
        return time.monotonic() - began

    alone = [await beside() for _ in range(100)]
    command = [sys.executable, str(FLOODER), mcp.url, mcp.prefix, "c", "never", str(many), "100"]
    flooder = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=PATHS)
    reading = asyncio.create_task(programs.output_of(flooder, 200))
    during = []
    while not reading.done():
        during.append(await beside())
    out, _ = await reading
    ended = json.loads(out)
    grown = process.memory_info().rss - before
    sys.stdout.write(
        f"{many} requests: {ended}; a call beside them {max(during) * 1000:.0f} ms at most, "
        f"{statistics.median(during) * 1000:.1f} in the median (alone {max(alone) * 1000:.0f} and "
        f"{statistics.median(alone) * 1000:.1f}); the worker grew by {grown >> 20} MiB\n"
    )
    assert set(ended) == {Capacity.code, ToolTimeout.code}
    assert sum(ended.values()) == many
    assert grown < 64 << 20
    await mcp.event("expired", session_id="c")
    assert worker.process.returncode is None
    assert (await mcp.client.get("beside")).is_alive


async def test_metadata_is_bounded_for_each_session_and_for_the_worker(mcp: Cluster):
    limits = {"worker": {"max_kept": "1M"}, "session": {"max_metadata": "300K"}}
    worker = await mcp.start(config(**limits))
    before = psutil.Process(worker.process.pid).memory_info().rss
    for number in range(6):
        many = {f"key-{key}-{'x' * 50}": {"a": 1} for key in range(45_000)}  # about 3.5 MB
        with pytest.raises(InvalidMessage, match=r"session\.max_metadata") as refused:
            await mcp.client.create(f"large-{number}", "echo", metadata=many)
        assert refused.value.details["limit"] == 300 << 10
    fits = {"padding": "x" * 250_000}
    for number in range(4):
        await mcp.client.create(f"c-{number}", "echo", metadata=fits)
    with pytest.raises(Capacity):
        await mcp.client.create("c-5", "echo", metadata=fits)
    await mcp.client.close("c-0")
    await mcp.client.create("c-5", "echo", metadata=fits)
    event = {"call_id": "e", "kind": "started", "attributes": {"padding": "x" * 400_000}}
    await mcp.client.publish_call_event(event)
    assert (await mcp.event("rejected", session_id="e")).data["metadata"] == {}
    grown = psutil.Process(worker.process.pid).memory_info().rss - before
    assert grown < 200 << 20, f"the worker has grown by {grown >> 20} MiB"


async def test_a_message_of_too_many_values_is_not_parsed(mcp: Cluster):
    await mcp.start(config(services={"echo": {"command": ECHO}}))
    await mcp.client.create("c", "echo")
    for body in ({"text": "x", "many": [0] * 100_000}, {"text": "x", "many": [{}] * 50_000}):
        with pytest.raises(InvalidMessage, match="100000 JSON values") as refused:
            await mcp.client.call_tool("c", "echo", body)
        assert refused.value.details["limit"] == 100_000
    await mcp.client.publish_call_event({"call_id": "e", "kind": "started", "attributes": {"many": [0] * 100_000}})
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="dead_lettered", reason="too_large")) == 3)
    assert (await mcp.client.call_tool("c", "echo", {"text": "lives"})).text == "lives"


async def test_answers_of_all_calls_together_are_bounded_and_the_oldest_goes_first():
    shelf = Shelf(100_000)
    calls = [Answers(shelf) for _ in range(20)]
    asked = 0

    async def answer(_: object) -> KeptAnswer:
        nonlocal asked
        asked += 1
        return KeptAnswer(b"x" * 10_000)

    for call in calls:
        await once(call, "key", ask_for("book"), answer)
    assert shelf.bytes <= 100_000
    assert [len(call) for call in calls[-8:]] == [1] * 8
    assert sum(map(len, calls)) < 10
    await once(calls[-1], "key", ask_for("book"), answer)
    assert asked == 20
    await once(calls[0], "key", ask_for("book"), answer)
    assert asked == 21
    for call in calls:
        call.clear()
    assert shelf.bytes == 0
