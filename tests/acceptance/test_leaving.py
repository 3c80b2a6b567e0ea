"""Leaving: asked, and killed."""

import asyncio
import os
import signal
import time

import psutil
import pytest

from schemas.errors import OutcomeUnknown, SessionsError
from tests.harness import ECHO, Cluster, config


async def open_fifty(mcp: Cluster) -> None:
    await asyncio.gather(*(mcp.client.create(f"s-{number}", "echo") for number in range(50)))


async def test_sigterm_closes_every_session_and_exits_cleanly(mcp: Cluster):
    worker = await mcp.start()
    await open_fifty(mcp)
    children = worker.children()
    assert len(children) >= 50
    began = time.monotonic()
    assert await worker.terminate() == 0
    assert time.monotonic() - began < 15
    await mcp.until(lambda: len(mcp.of("closed", reason="worker_shutdown")) == 50)
    await mcp.until(lambda: mcp.of("stopped"))
    order = [event.type for event in mcp.events if event.type.startswith("mcp.worker")]
    assert order == ["mcp.worker.started", "mcp.worker.draining", "mcp.worker.stopped"]
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []


async def test_sigkill_leaves_no_server_behind(mcp: Cluster):
    worker = await mcp.start({"services": {"echo": {"command": [*ECHO, "--ignore-eof"]}}})
    await open_fifty(mcp)
    children = worker.children()
    await worker.kill()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []


async def test_a_session_of_a_service_that_shall_not_be_restored_is_only_closed(mcp: Cluster):
    configuration = {"services": {"echo": {"command": ECHO, "restore": False}}}
    first = await mcp.start(configuration)
    await mcp.client.create("left", "echo")
    await mcp.start(configuration)
    await mcp.until(lambda: len(mcp.of("started")) == 2)
    assert await first.terminate() == 0
    await mcp.event("closed", session_id="left", reason="worker_shutdown")
    await mcp.event("stopped")
    assert (await mcp.client.list_sessions()).sessions == {}
    assert len(mcp.of("created")) == 1


async def test_what_the_others_have_no_room_for_is_rejected_and_opens_only_when_it_is_asked_for(mcp: Cluster):
    configuration = config(session={"max_total_sessions": 1}, worker={"admission_wait": 0.2})
    first = await mcp.start(configuration)
    await mcp.client.create("moves", "echo")
    other = await mcp.start(configuration)
    await mcp.client.create("stays", "echo")
    assert await first.terminate() == 0
    await mcp.event("closed", session_id="moves", reason="worker_shutdown")
    await mcp.event("rejected", session_id="moves", code="CAPACITY")
    await other.logged("delivery", type="call.recipe", outcome="not_restored", code="CAPACITY")
    await mcp.start(configuration)  # the first one is back
    assert set((await mcp.client.list_sessions()).sessions) == {"stays"}
    await mcp.client.call_tool("moves", "echo", {"text": "again"}, service_name="echo")
    assert set((await mcp.client.list_sessions()).sessions) == {"moves", "stays"}


class Steps:
    """A tool call of so many steps, each half a second, and a word for each that it has done."""

    def __init__(self, mcp: Cluster, count: int) -> None:
        self._done: asyncio.Queue[object] = asyncio.Queue()
        arguments = {"steps": count, "interval": 0.5}
        call = mcp.client.call_tool("busy", "progress", arguments, on_progress=self._done.put)
        self.answer = asyncio.create_task(call)

    async def another(self) -> None:
        async with asyncio.timeout(45):
            await self._done.get()


async def test_a_sigterm_that_comes_twice_is_one_wish_and_cuts_no_tool_call(mcp: Cluster):
    """As Heroku sends it, to every process of a dyno."""
    worker = await mcp.start(DYNO="worker.1")
    await mcp.client.create("busy", "echo")
    steps = Steps(mcp, 8)
    await steps.another()
    for said in ("worker.draining", "worker.draining_already"):
        for pid in (worker.process.pid, *(child.pid for child in worker.children())):
            os.kill(pid, signal.SIGTERM)
        await worker.logged(said, signal="SIGTERM")
        await steps.another()
        await steps.another()
    assert not (await steps.answer).is_error
    assert await worker.ended() == 0
    assert not mcp.logged("worker.hurrying")


async def test_a_person_who_asks_twice_hurries(mcp: Cluster):
    worker = await mcp.start()
    await mcp.client.create("busy", "echo")
    steps = Steps(mcp, 60)
    for said in ("worker.draining", "worker.hurrying"):
        await steps.another()
        worker.process.send_signal(signal.SIGINT)
        await worker.logged(said, signal="SIGINT")
    assert await worker.ended() == 4
    with pytest.raises(SessionsError, match="the worker shut down"):
        await steps.answer


async def test_a_tool_call_that_cannot_be_waited_for_is_told_as_cut_to_everybody(mcp: Cluster):
    worker = await mcp.start(config(worker={"drain_timeout": 5}))
    await mcp.client.create("busy", "echo")
    steps = Steps(mcp, 60)
    await steps.another()
    assert await worker.terminate() == 4
    cut = await worker.logged("owner.requests_cut")
    assert (cut["level"], cut["call_id"], cut["requests"]) == ("warning", "busy", 1)
    assert (await worker.logged("worker.stopped"))["drained"] is False
    with pytest.raises(OutcomeUnknown, match="the worker shut down, and ended the server before it answered"):
        await steps.answer
