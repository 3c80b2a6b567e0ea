"""Calls with two real servers at once: what is remembered, who sees which files, what a close leaves alone."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from tests.harness import Cluster

from .servers import Servers
from .visit import all_gone, servers_of

pytestmark = [pytest.mark.realservers, pytest.mark.timeout(150, func_only=True)]

CALLS = ("call-a", "call-b")


async def text(mcp: Cluster, session_id: str, tool: str, **arguments: object) -> str:
    """The text of a tool's answer, be it an error or not."""
    return str((await mcp.client.call_tool(session_id, tool, arguments)).text)


async def open_calls(mcp: Cluster, *services: str) -> None:
    """Two calls, each with a session on each service, opened by what a telephony platform says."""
    for call in CALLS:
        await mcp.client.publish_call_event({"call_id": call, "kind": "started"})
    await mcp.until(lambda: len(mcp.of("created")) == len(CALLS) * len(services) or mcp.of("rejected"))
    for refused in mcp.of("rejected"):
        if "does not work here" in refused.data["message"]:
            pytest.skip(refused.data["message"])
        raise AssertionError(refused.data["message"])
    opened = {(event.data["call_id"], event.data["service_name"]) for event in mcp.of("created")}
    assert opened == {(call, service) for call in CALLS for service in services}


async def test_two_services_of_a_call_remember_at_once_and_each_call_only_its_own(servers: Servers, mcp: Cluster):
    memory, sqlite = servers.memory(), servers.sqlite()
    worker = await mcp.start({"services": {one.name: one.configured() for one in (memory, sqlite)}})
    await open_calls(mcp, memory.name, sqlite.name)

    async def remember(call: str, number: int) -> None:
        """Both services of a call at the same time; asked by their names, as an agent does."""
        entity = {"name": f"{call}/{number}", "entityType": "caller", "observations": []}
        insert = {"query": f"INSERT INTO callers VALUES ('{call}/{number}')"}
        await asyncio.gather(
            mcp.client.call_tool(call, "create_entities", {"entities": [entity]}, service_name=memory.name),
            mcp.client.call_tool(call, "write_query", insert, service_name=sqlite.name),
        )

    async def life(call: str) -> None:
        table = {"query": "CREATE TABLE callers (name TEXT)"}
        await mcp.client.call_tool(call, "create_table", table, service_name=sqlite.name)
        for number in range(10):
            await remember(call, number)

    await asyncio.gather(*(life(call) for call in CALLS))
    for call in CALLS:
        expected = [f"{call}/{number}" for number in range(10)]
        graph = await mcp.client.call_tool(call, "read_graph", service_name=memory.name)
        assert [entity["name"] for entity in graph.structured_content["entities"]] == expected
        query = {"query": "SELECT name FROM callers"}
        rows = await mcp.client.call_tool(call, "read_query", query, service_name=sqlite.name)
        assert rows.text == str([{"name": name} for name in expected])
    assert len((await mcp.client.list_sessions()).sessions) == 4

    processes = servers_of(worker)
    assert len(processes) == 4
    await asyncio.gather(*(mcp.client.publish_call_event({"call_id": call, "kind": "ended"}) for call in CALLS))
    await mcp.until(lambda: len(mcp.of("closed", reason="call_ended")) == 4)
    await all_gone(processes)
    assert servers_of(worker) == []


@pytest.mark.parametrize("kind", ["limits", "bubblewrap"])
async def test_the_home_of_one_call_is_invisible_to_another(servers: Servers, mcp: Cluster, kind: str):
    shell, files = servers.shell("pwd", "ls", "tee"), servers.filesystem()
    sandbox = {"kind": kind, "user": "worker"}
    await mcp.start({"services": {one.name: one.configured(sandbox=sandbox) for one in (shell, files)}})
    await open_calls(mcp, shell.name, files.name)

    async def run(call: str, *command: str, **more: str) -> str:
        return await text(mcp, call, "shell_execute", command=list(command), **more)

    homes = [Path((await run(call, "pwd")).strip()) for call in CALLS]
    mine, theirs = homes
    assert mine != theirs
    for call in CALLS:
        assert await run(call, "ls") == ""
    await run("call-a", "tee", "secret.txt", stdin="1234")
    await text(mcp, f"call-a#{files.name}", "write_file", path="~/secret.txt", content="5678")
    assert (await run("call-a", "ls")).split() == ["secret.txt"]
    assert await text(mcp, f"call-a#{files.name}", "read_text_file", path="~/secret.txt") == "5678"
    assert await run("call-b", "ls") == ""
    assert "ENOENT" in await text(mcp, f"call-b#{files.name}", "read_text_file", path="~/secret.txt")
    # A server that keeps to its folder refuses the way there, and nobody finds it by looking around.
    path = str(mine / "secret.txt")
    assert "Access denied" in await text(mcp, f"call-b#{files.name}", "read_text_file", path=path)
    around = await run("call-b", "ls", str(mine.parent))
    if kind == "bubblewrap":
        assert around.split() == [theirs.name]
        assert "No such file" in await run("call-b", "ls", path)
    elif os.geteuid() != 0:  # limits alone hide nothing from root, who may list every folder
        assert "Permission denied" in around


async def test_closing_one_session_leaves_the_files_of_the_others(servers: Servers, mcp: Cluster):
    shell, files = servers.shell("tee", "cat"), servers.filesystem()
    worker = await mcp.start({"services": {one.name: one.configured() for one in (files, shell)}})
    await mcp.client.create("call-a", files.name)
    await mcp.client.create(f"call-a#{shell.name}", shell.name)
    await mcp.client.create("call-b", files.name)
    folders = {Path(process.cwd()): process for process in servers_of(worker)}
    assert len(folders) == 3
    for session in ("call-a", "call-b"):
        await text(mcp, session, "write_file", path="kept.txt", content=session)
    await text(mcp, f"call-a#{shell.name}", "shell_execute", command=["tee", "gone.txt"], stdin="soon")
    closed = next(folder for folder in folders if (folder / "gone.txt").exists())

    answer = await mcp.client.close(f"call-a#{shell.name}")
    assert answer.sessions == [f"call-a#{shell.name}"]
    await all_gone([folders.pop(closed)])
    assert not closed.exists()
    await still_there(mcp, list(folders.values()), "call-a", "call-b")

    other = next(folder for folder in folders if (folder / "kept.txt").read_text() == "call-a")
    await mcp.client.close("call-a")
    await all_gone([folders.pop(other)])
    assert not other.exists()
    await still_there(mcp, list(folders.values()), "call-b")


async def still_there(mcp: Cluster, processes: list[psutil.Process], *sessions: str) -> None:
    """The sessions have their files and the processes that they had."""
    assert all(process.is_running() for process in processes)
    for session in sessions:
        assert await text(mcp, session, "read_text_file", path="kept.txt") == session
