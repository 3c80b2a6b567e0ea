"""Calls that ring: on a route that starts when a call is answered, everything is ready by then."""

import asyncio
import os
import signal
from typing import Any

import psutil

from tests.harness import ECHO, OPEN, WAIT, Cluster, WorkerProcess, config

ANSWERED: list[dict[str, Any]] = [{"services": ["echo"], "start": "answered"}]


def route(services: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    found = config(**{"services": {"echo": {"command": ECHO, "sandbox": OPEN}}, "routes": ANSWERED} | sections)
    found["services"]["echo"] |= services or {}
    return found


async def says(mcp: Cluster, call: str, state: str, kind: str = "progress") -> None:
    """Publish how far a call is."""
    await mcp.client.publish_call_event({"call_id": call, "kind": kind, "attributes": {"call_state": state}})


async def ends(mcp: Cluster, call: str) -> None:
    await mcp.client.publish_call_event({"call_id": call, "kind": "ended"})


def is_server(process: psutil.Process) -> bool:
    try:
        return "echo_server" in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False


async def servers(worker: WorkerProcess, count: int) -> set[int]:
    """Wait until so many servers run below the worker, and tell which."""
    async with asyncio.timeout(WAIT):
        while True:
            found = {child.pid for child in worker.children() if is_server(child)}
            if len(found) == count:
                return found
            await asyncio.sleep(0.02)


async def load(mcp: Cluster, sessions: int) -> dict[str, Any]:
    """Wait until the only worker tells of so many sessions, and what else it tells."""
    async with asyncio.timeout(WAIT):
        while True:
            (worker,) = (await mcp.client.list_workers()).workers
            if worker.sessions == sessions:
                return worker.services["echo"].model_dump()


async def warm(mcp: Cluster) -> None:
    """Wait until a process waits for a call."""
    async with asyncio.timeout(WAIT):
        while not (await load(mcp, 0))["warm"]:
            await asyncio.sleep(0.02)


async def pid_of(mcp: Cluster, call: str) -> int:
    return int((await mcp.client.call_tool(call, "cwd")).structured_content["pid"])


async def test_an_answered_call_gets_the_process_that_was_started_while_it_rang(mcp: Cluster):
    worker = await mcp.start(route())
    await says(mcp, "call", "created", "started")
    await says(mcp, "call", "ringing")
    (pid,) = await servers(worker, 1)
    await load(mcp, 1)
    assert not mcp.of("created")
    await says(mcp, "call", "answered")
    await mcp.event("created", session_id="call")
    assert await pid_of(mcp, "call") == pid
    await ends(mcp, "call")
    assert (await mcp.event("closed", session_id="call")).data["tools"]["start"] == "reserved"
    assert len(mcp.of("created")) == 1


async def test_what_rings_in_vain_is_given_back(mcp: Cluster):
    worker = await mcp.start(route())
    await says(mcp, "call", "ringing", "started")
    await servers(worker, 1)
    await says(mcp, "call", "ending")
    await ends(mcp, "call")
    await servers(worker, 0)
    await load(mcp, 0)
    await says(mcp, "call", "answered")  # late, and the call has ended
    await worker.logged("delivery", outcome="ended_before")
    assert not mcp.events[1:]  # but for worker.started


async def test_a_process_of_the_pool_is_reserved(mcp: Cluster):
    worker = await mcp.start(route({"warm": {"min": 1, "max": 1}}))
    waiting = await servers(worker, 1)
    await warm(mcp)
    await says(mcp, "call", "ringing", "started")
    assert waiting < await servers(worker, 2)
    await says(mcp, "call", "answered")
    await mcp.event("created", session_id="call")
    assert await pid_of(mcp, "call") in waiting


async def test_a_process_of_the_pool_that_was_not_needed_waits_again(mcp: Cluster):
    worker = await mcp.start(route({"warm": {"min": 1, "max": 2}}))
    await servers(worker, 1)
    await warm(mcp)
    await says(mcp, "call", "ringing", "started")
    both = await servers(worker, 2)
    await ends(mcp, "call")
    async with asyncio.timeout(WAIT):
        while (await load(mcp, 0))["warm"] != 2:
            await asyncio.sleep(0.02)
    assert await servers(worker, 2) == both


async def test_what_rings_for_too_long_is_given_back_and_opens_when_it_is_answered(mcp: Cluster):
    worker = await mcp.start(route(worker={"ring_timeout": 0.5}))
    await says(mcp, "call", "ringing", "started")
    (pid,) = await servers(worker, 1)
    await servers(worker, 0)
    await load(mcp, 0)
    await says(mcp, "call", "answered")
    await mcp.event("created", session_id="call")
    assert await pid_of(mcp, "call") != pid


async def test_a_call_that_rings_takes_room_and_gives_it_back(mcp: Cluster):
    await mcp.start(route(session={"max_total_sessions": 1}, worker={"admission_wait": 0.3}))
    await says(mcp, "one", "ringing", "started")
    await load(mcp, 1)
    await says(mcp, "two", "answered", "started")
    assert (await mcp.event("rejected", session_id="two")).data["code"] == "CAPACITY"
    await ends(mcp, "one")
    await load(mcp, 0)
    await says(mcp, "three", "answered", "started")
    await mcp.event("created", session_id="three")


async def test_a_command_takes_what_is_reserved(mcp: Cluster):
    worker = await mcp.start(route(session={"max_total_sessions": 2}))
    for call in ("created", "called"):
        await says(mcp, call, "ringing", "started")
    pids = await servers(worker, 2)
    await mcp.client.create("created", "echo")
    result = await mcp.client.call_tool("called", "cwd", service_name="echo")
    assert {await pid_of(mcp, "created"), result.structured_content["pid"]} == pids
    await says(mcp, "created", "answered")
    await worker.logged("delivery", type="call.progress", call_id="created")
    assert await servers(worker, 2) == pids
    assert len(mcp.of("created")) == 2


async def test_a_reserved_process_that_dies_costs_a_start_and_no_call(mcp: Cluster):
    worker = await mcp.start(route())
    await says(mcp, "call", "ringing", "started")
    (pid,) = await servers(worker, 1)
    await load(mcp, 1)
    await mcp.client.service_tools("echo")  # it has started: it has told them
    os.kill(pid, signal.SIGKILL)
    await load(mcp, 0)
    await says(mcp, "call", "answered")
    await mcp.event("created", session_id="call")
    assert await pid_of(mcp, "call") != pid


async def test_the_death_of_an_owner_while_it_rings_loses_nothing(mcp: Cluster):
    settings = route(worker={"grace": 1.0})
    first = await mcp.start(settings)
    await says(mcp, "call", "ringing", "started")
    await servers(first, 1)
    second = await mcp.start(settings)
    await first.kill()
    await says(mcp, "call", "answered")
    created = await mcp.event("created", session_id="call", within=2 * WAIT)
    assert created.data["worker_id"] == second.worker_id
    assert not created.data["restored"]
    assert await pid_of(mcp, "call")


async def test_a_worker_that_leaves_gives_everything_back(mcp: Cluster):
    first = await mcp.start(route())
    await says(mcp, "call", "ringing", "started")
    await servers(first, 1)
    second = await mcp.start(route())
    assert await first.terminate() == 0
    await says(mcp, "call", "answered")
    assert (await mcp.event("created", session_id="call")).data["worker_id"] == second.worker_id
    assert not mcp.of("closed")


async def test_without_a_state_nothing_waits(mcp: Cluster):
    await mcp.start(route())
    await mcp.client.publish_call_event({"call_id": "call", "kind": "started"})
    await mcp.event("created", session_id="call")
