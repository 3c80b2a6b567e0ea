"""Tool calls at a phone call's pace: deadlines, once and only once, progress, questions, limits."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable

import psutil
import pytest

from schemas.errors import (
    Capacity,
    DeadlineExceeded,
    InvalidMessage,
    McpError,
    OutcomeUnknown,
    SessionNotFound,
    ToolNotFound,
    ToolTimeout,
)
from schemas.interim import ToolsPending, ToolsProgress
from tests.harness import ECHO, OPEN, Cluster, config
from tests.processes.helpers import until


@pytest.fixture
async def call(mcp: Cluster):
    """A worker, and a session ``c`` on it."""
    await mcp.start()
    await mcp.client.create("c", "echo")
    return mcp


async def test_every_kind_of_content_comes_through_unharmed(call):
    answer = await call.client.call_tool("c", "content")
    kinds = [part["type"] for part in answer.content]
    assert kinds == ["text", "image", "audio", "resource_link", "resource", "from-the-future"]
    assert answer.content[0]["annotations"] == {"audience": ["user"], "priority": 0.5}
    assert answer.content[5]["anything"] == [1, 2.5, None, {"x": "y"}]
    assert answer.structured_content == {"answer": 42, "nested": {"list": [1, 2, 3]}}
    assert (answer.model_extra or {})["_meta"] == {"example.com/trace": "abc"}
    assert (answer.model_extra or {})["unknownField"] is True
    assert (answer.text, answer.session_id) == ("t", "c")


async def test_an_error_of_the_tool_is_a_result_and_an_error_of_the_server_is_an_error(call):
    failed = await call.client.call_tool("c", "fail", {"message": "out of stock"})
    assert failed.is_error
    assert failed.text == "out of stock"
    with pytest.raises(McpError, match="refused") as caught:
        await call.client.call_tool("c", "error", {"code": -32050, "data": {"why": "x"}})
    assert caught.value.details == {"code": -32050, "message": "refused", "data": {"why": "x"}}
    with pytest.raises(ToolNotFound, match="no tool 'nonsense'"):
        await call.client.call_tool("c", "nonsense")


async def test_every_call_carries_the_call_and_the_session_beside_the_callers_own_meta(call):
    answer = await call.client.call_tool("c", "meta", meta={"tenant": "acme"})
    meta = answer.structured_content["meta"]
    assert (meta["call_id"], meta["session_id"], meta["tenant"]) == ("c", "c", "acme")
    assert "idempotency_key" not in meta
    answer = await call.client.call_tool("c", "meta", meta={"idempotency_key": "theirs"}, idempotency_key="order-7")
    assert answer.structured_content["meta"]["idempotency_key"] == "order-7"


async def end_of_call(mcp: Cluster) -> None:
    await mcp.client.publish_call_event({"call_id": "c", "kind": "ended"})


async def close(mcp: Cluster) -> None:
    await mcp.client.close("c")


async def replace(mcp: Cluster) -> None:
    await mcp.client.create("c", "echo")


@pytest.mark.parametrize(
    ("end", "why", "reason"),
    [
        (end_of_call, "the call ended", "call_ended"),
        (close, "the session was closed", "requested"),
        (replace, "the session was replaced", "replaced"),
    ],
    ids=["the caller hangs up", "it is closed", "it is replaced"],
)
async def test_a_tool_call_whose_session_is_ended_says_why(
    call: Cluster, end: Callable[[Cluster], Awaitable[None]], why: str, reason: str
):
    began: asyncio.Queue[ToolsProgress] = asyncio.Queue()
    slow = asyncio.create_task(
        call.client.call_tool("c", "progress", {"steps": 99, "interval": 0.5}, on_progress=began.put_nowait)
    )
    await began.get()
    await end(call)
    with pytest.raises(OutcomeUnknown, match=f"{why}, and ended the server before it answered") as caught:
        await slow
    assert caught.value.details["reason"] == reason


async def test_resources_and_prompts_are_the_servers_own(call):
    listed = await call.client.list_resources("c")
    assert listed.resources[0].uri == "note://one"
    templates = await call.client.list_resource_templates("c")
    assert templates.resource_templates[0].uri_template == "note://{name}"
    read = await call.client.read_resource("c", "note://one")
    assert read.contents[0].text == "text of note://one"
    assert (await call.client.list_prompts("c")).prompts[0].name == "greet"
    greeting = await call.client.get_prompt("c", "greet", {"who": "Ada"})
    assert "Ada" in greeting.messages[0].content["text"]


async def test_a_tool_call_with_a_service_opens_the_session_that_is_missing(mcp: Cluster):
    await mcp.start()
    with pytest.raises(SessionNotFound):
        await mcp.client.call_tool("new", "counter")
    first = await mcp.client.call_tool("new", "counter", service_name="echo")
    assert (first.session_id, first.structured_content) == ("new", {"count": 1})
    again = await mcp.client.call_tool("new", "counter", service_name="echo")
    assert again.structured_content == {"count": 2}
    assert len(mcp.of("created")) == 1


async def test_a_call_past_its_deadline_is_cancelled_at_the_server_and_the_session_stays(call):
    began = time.monotonic()
    with pytest.raises(ToolTimeout, match=r"within 0\.\d{1,3} s"):
        await call.client.call_tool("c", "sleep", {"seconds": 30}, timeout=0.5)
    assert time.monotonic() - began < 20
    cancelled = await call.client.call_tool("c", "cancelled")
    assert len(cancelled.structured_content["ids"]) == 1
    assert (await call.client.call_tool("c", "echo", {"text": "alive"})).text == "alive"


async def test_a_request_that_waited_past_its_deadline_is_not_executed(mcp: Cluster):
    await mcp.start({"services": {"echo": {"command": [*ECHO, "--slow-start", "1.5"]}}})
    creating = asyncio.create_task(mcp.client.create("late", "echo"))
    await mcp.until(lambda: mcp.logged("delivery", outcome="placed"))
    with pytest.raises(DeadlineExceeded, match="not executed"):  # it waits for the opening in front of it
        await mcp.client.call_tool("late", "counter", service_name="echo", timeout=0.6)
    await creating
    answer = await mcp.client.call_tool("late", "counter")
    assert answer.structured_content == {"count": 1}


async def test_a_repeated_key_joins_the_call_in_flight_and_is_good_for_one_request(call):
    async def count(key):
        return await call.client.call_tool("c", "counter", idempotency_key=key)

    answers = await asyncio.gather(*(count("once") for _ in range(10)))
    assert [answer.structured_content["count"] for answer in answers] == [1] * 10
    assert (await count("twice")).structured_content == {"count": 2}
    with pytest.raises(InvalidMessage, match="idempotency_key"):
        await call.client.call_tool("c", "echo", idempotency_key="once")
    patient = await call.client.call_tool("c", "counter", idempotency_key="once", timeout=60, on_progress=print)
    assert patient.structured_content == {"count": 1}


async def test_a_key_is_unknown_to_the_worker_that_takes_the_call_over(mcp: Cluster):
    """As the pages say, which tell what to do about it."""
    worker = await mcp.start(config(worker={"grace": 1}))
    await mcp.client.create("c", "echo")
    assert (await mcp.client.call_tool("c", "counter", idempotency_key="k")).structured_content == {"count": 1}
    heir = await mcp.start(config(worker={"grace": 1}))
    await worker.kill()
    await mcp.event("created", restored=True, worker_id=heir.worker_id)
    again = await mcp.client.call_tool("c", "counter", idempotency_key="k")
    assert (again.structured_content, again.restored) == ({"count": 1}, True)


async def test_what_was_not_executed_may_be_tried_again_under_its_key(call):
    with pytest.raises(ToolNotFound):
        await call.client.call_tool("c", "extra", idempotency_key="k")
    await call.client.call_tool("c", "add_tool", {"name": "extra"})
    assert not (await call.client.call_tool("c", "extra", idempotency_key="k")).is_error


async def test_a_call_whose_server_died_is_of_unknown_outcome_and_never_executed_again(call):
    with pytest.raises(OutcomeUnknown) as caught:
        await call.client.call_tool("c", "die", {"code": 3, "stderr": "oops\n"}, idempotency_key="fatal")
    assert caught.value.details["exit_code"] == 3
    died = await call.event("died", session_id="c")
    assert died.data["exit_code"] == 3
    assert "oops" in died.data["stderr"]
    # The same key, now with leave to open a session: the answer is remembered, nothing is opened or executed.
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await call.client.call_tool("c", "die", {"code": 3, "stderr": "oops\n"}, idempotency_key="fatal")
    for request in (call.client.call_tool("c", "counter"), call.client.list_tools("c"), call.client.get("c")):
        with pytest.raises(SessionNotFound, match="it died, the server has ended with exit code 3") as missing:
            await request
        assert missing.value.details["exit_code"] == 3
        assert "oops" in missing.value.details["stderr"]
    assert len(call.of("created")) == 1
    fresh = await call.client.call_tool("c", "counter", service_name="echo")
    assert fresh.structured_content == {"count": 1}


async def test_a_read_only_tool_is_repeated_on_a_fresh_process_where_the_service_allows_it(mcp: Cluster):
    await mcp.start({"services": {"echo": {"command": ECHO, "sandbox": OPEN, "retry": True}}})
    await mcp.client.create("c", "echo", metadata={"tenant": "acme"})
    pid = (await mcp.client.call_tool("c", "cwd")).structured_content["pid"]
    server = psutil.Process(pid)
    idle = server.num_threads()
    sleeping = asyncio.create_task(mcp.client.call_tool("c", "nap", {"seconds": 1.0}))
    await until(lambda: server.num_threads() > idle, "the tool does not run")
    os.kill(pid, signal.SIGKILL)
    answer = await sleeping
    assert answer.text == "slept 1.0"
    assert (await mcp.event("died", session_id="c")).data["signal"] == 9
    assert len(mcp.of("created")) == 2
    assert mcp.of("created")[1].data["metadata"] == {"tenant": "acme"}


async def test_progress_and_pending_reach_the_caller_in_order_before_the_answer(call):
    heard: list[object] = []

    async def hear(message):
        heard.append(message)

    answer = await call.client.call_tool(
        "c", "progress", {"steps": 10, "interval": 0.02}, on_progress=hear, on_pending=hear, pending_after=0.05
    )
    assert answer.text == "10 steps"
    steps = [message.progress for message in heard if isinstance(message, ToolsProgress)]
    assert steps == [float(step) for step in range(1, 11)]
    assert len([message for message in heard if isinstance(message, ToolsPending)]) == 1


async def test_a_quick_call_tells_nothing_before_its_answer(call):
    heard = []

    async def hear(message):
        heard.append(message)

    await call.client.call_tool("c", "echo", on_pending=hear, pending_after=5)
    assert heard == []


async def test_a_question_is_declined_where_nobody_offered_to_answer(call):
    answer = await call.client.call_tool("c", "ask")
    assert answer.structured_content["reply"]["result"]["action"] == "decline"


async def test_a_question_that_nobody_answers_is_cancelled_in_time(mcp: Cluster):
    await mcp.start({"services": {"echo": {"command": ECHO, "question_timeout": 0.3}}})
    await mcp.client.create("c", "echo")
    asked = []

    async def ignore(question):
        asked.append(question)
        return {"action": "cancel"} if len(asked) > 1 else await asyncio.sleep(1, {"action": "accept"})

    with pytest.raises(InvalidMessage, match="no question"):  # the late answer is refused, by name
        await mcp.client.call_tool("c", "ask", on_question=ignore)
    with pytest.raises(InvalidMessage, match="input_id"):
        await mcp.client.request(
            "input.answer", {"session_id": "c", "input_id": "none", "action": "accept"}, call_id="c"
        )


async def test_bound_arguments_are_pinned_and_not_shown(mcp: Cluster):
    bind = {"text": "{from} of {tenant}"}
    await mcp.start(config(services={"echo": {"command": ECHO, "bind": bind}},
                           routes=[{"services": ["echo"], "metadata": {"tenant": "acme"}}]))  # fmt: skip
    await mcp.client.publish_call_event({"call_id": "b", "kind": "started", "from": "+15551230001"})
    await mcp.event("created", session_id="b")
    echo = next(tool for tool in (await mcp.client.list_tools("b")).tools if tool.name == "echo")
    assert echo.input_schema["properties"] == {}
    answer = await mcp.client.call_tool("b", "echo", {"text": "something else"})
    assert answer.text == "+15551230001 of acme"
    meta = await mcp.client.call_tool("b", "meta", {"text": "kept: this tool has no such argument"})
    assert not meta.is_error


async def test_limits_are_told_with_their_sizes(mcp: Cluster):
    limits = {"max_calls": 2, "max_arguments": "10K", "max_result": "20K"}
    await mcp.start({"services": {"echo": {"command": ECHO, **limits}}})
    await mcp.client.create("c", "echo")
    with pytest.raises(InvalidMessage, match="max_arguments"):
        await mcp.client.call_tool("c", "echo", {"text": "x" * 11_000})
    with pytest.raises(McpError, match=r"max_result") as caught:
        await mcp.client.call_tool("c", "big", {"size": 30_000})
    assert caught.value.details["size"] > 30_000
    assert caught.value.details["limit"] == 20 * 1024
    with pytest.raises(McpError, match=r"max_result") as caught:  # so large that it is not even parsed
        await mcp.client.call_tool("c", "big", {"size": 5_000_000})
    assert set(caught.value.details) == {"size", "limit"}
    assert caught.value.details["size"] > 5_000_000 > caught.value.details["limit"]
    pending: asyncio.Queue = asyncio.Queue()
    running = [
        asyncio.create_task(
            mcp.client.call_tool("c", "sleep", {"seconds": 2}, pending_after=0.01, on_pending=pending.put)
        )
        for _ in range(2)
    ]
    async with asyncio.timeout(45):
        await pending.get()
        await pending.get()
    with pytest.raises(Capacity, match="max_calls"):
        await mcp.client.call_tool("c", "echo", {"text": "x"})
    assert [answer.text for answer in await asyncio.gather(*running)] == ["slept 2"] * 2


async def test_a_session_survives_floods_and_nonsense(call):
    await call.client.call_tool("c", "stderr", {"size": 256 * 1024})
    big = await call.client.call_tool("c", "big", {"size": 1 << 20})
    assert len(big.text) == 1 << 20
    heard = []

    async def hear(message):
        heard.append(message.progress)

    await call.client.call_tool("c", "progress", {"steps": 50, "interval": 0.005}, on_progress=hear)
    assert len(heard) == 50
    await call.client.call_tool("c", "stdout", {"line": "not json", "times": 20})
    assert (await call.client.call_tool("c", "invalid_utf8")).text == "a\ufffdz"
    assert json.dumps((await call.client.call_tool("c", "surrogate")).content)
    assert (await call.client.call_tool("c", "counter")).structured_content == {"count": 1}
    assert call.of("died") == []


async def test_the_end_of_a_session_tells_what_its_tools_did(call):
    for _ in range(3):
        await call.client.call_tool("c", "echo", {"text": "x"})
    await call.client.call_tool("c", "fail")
    await call.client.close("c")
    record = (await call.event("closed", session_id="c")).data["tools"]
    assert (record["calls"], record["errors"]) == (4, 1)
    assert 0 < record["p50"] <= record["p95"] <= record["longest"]
    assert record["bytes_in"] > 0
    assert record["bytes_out"] > 0
    assert record["start"] == "cold"
    assert record["start_duration"] > 0
