"""The warm pool of a worker: who calls does not wait for a start, and nobody is left behind."""

import asyncio

import psutil

from tests.harness import ECHO, OPEN, WAIT, Cluster

WARM = {"services": {"echo": {"command": ECHO, "sandbox": OPEN, "warm": {"min": 2, "max": 4}}}}


async def has_warm(mcp: Cluster, count: int) -> None:
    """Ask until the worker tells of so many or, when calls come quickly, of more."""
    async with asyncio.timeout(WAIT):
        while True:
            workers = (await mcp.client.list_workers()).workers
            if any(worker.services["echo"].warm >= count for worker in workers):
                return


async def test_sessions_are_served_from_the_pool_which_refills(mcp: Cluster):
    worker = await mcp.start(WARM)
    await has_warm(mcp, 2)
    first = {child.pid for child in worker.children()}
    for call in ("one", "two"):
        await mcp.client.create(call, "echo")
        result = await mcp.client.call_tool(call, "cwd")
        assert result.structured_content["pid"] in first
        await mcp.client.close(call)
        assert (await mcp.event("closed", session_id=call)).data["tools"]["start"] == "warm"
    async with asyncio.timeout(WAIT):
        while len({child.pid for child in worker.children()} - first) < 2:
            await asyncio.sleep(0.02)
    await has_warm(mcp, 2)


async def test_the_catalogue_is_there_before_any_session(mcp: Cluster):
    worker = await mcp.start(WARM)
    await has_warm(mcp, 2)
    before = {child.pid for child in worker.children()}
    assert "echo" in {tool.name for tool in (await mcp.client.service_tools("echo")).tools}
    assert {child.pid for child in worker.children()} == before


async def test_sigterm_leaves_none_of_the_pool(mcp: Cluster):
    worker = await mcp.start(WARM)
    await has_warm(mcp, 2)
    await mcp.client.create("call", "echo")
    children = worker.children()
    assert len(children) >= 3
    assert await worker.terminate() == 0
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []
    assert not worker.children()


async def test_sigkill_leaves_none_of_the_pool(mcp: Cluster):
    worker = await mcp.start({"services": {"echo": {**WARM["services"]["echo"], "command": [*ECHO, "--ignore-eof"]}}})
    await has_warm(mcp, 2)
    children = worker.children()
    await worker.kill()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []
