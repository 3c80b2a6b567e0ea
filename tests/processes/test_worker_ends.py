"""A worker, as a process of its own, that ends without stopping its servers leaves nothing."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from tests.programs import output_of, start_code

from .helpers import command, runs, until

WORKER = """
import asyncio, sys
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.launch.launcher import LocalLauncher
from consumer.processes.service import MCPService

async def main():
    launcher = LocalLauncher()
    pids = []
    for switches in ([], ["--ignore-eof", "--ignore-term"], ["--ignore-eof", "--ignore-term", "--grandchild"]):
        sandbox = {"kind": "limits", "user": "worker"}
        client = MCPClient(MCPService(command=[*sys.argv[1:], *switches], sandbox=sandbox), launcher=launcher)
        await client.start()
        pids.append(client.process.pid)
    await client.call_tool("spawn", {"stubborn": True, "escape": True, "clean": True})
    pids += (await client.call_tool("grandchildren"))["structuredContent"]["pids"]
    print(launcher.base, launcher.keeper_pid, *pids, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_a_killed_worker_leaves_nothing_after_three_seconds(temporary: Path) -> None:
    """Not even what has left its parents, its session and its environment."""
    env = os.environ | {"TMPDIR": str(temporary)}
    worker = await start_code(WORKER, temporary, *command("echo_server"), stdout=asyncio.subprocess.PIPE, env=env)
    assert worker.stdout is not None
    base, *numbers = (await asyncio.wait_for(worker.stdout.readline(), 45)).decode().split()
    pids = [int(number) for number in numbers]
    assert len(pids) == 6  # the keeper, three servers, two grandchildren
    assert all(runs(pid) for pid in pids)
    worker.kill()
    killed = time.monotonic()
    await worker.wait()
    await until(lambda: not any(runs(pid) for pid in pids), "processes are left", timeout=3.0)
    await until(lambda: not Path(base).exists(), "the folder is left", timeout=3.0)
    assert time.monotonic() - killed < 3.0


@pytest.mark.parametrize("starting", [False, True])
async def test_a_torn_down_loop_leaves_nothing(temporary: Path, starting: bool) -> None:
    """A worker whose main coroutine ends without stopping anything: ``asyncio.run`` cancels the owners."""
    server = command("mute") if starting else command("echo_server", "--ignore-eof", "--grandchild")
    code = f"""
import asyncio
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.service import MCPService
async def main():
    client = MCPClient(MCPService(command={server!r}))
    start = asyncio.create_task(client.start())
    while client.process is None or not ({starting} or start.done()):
        await asyncio.sleep(0.01)
    print(client.process.pid, flush=True)
asyncio.run(main())
"""
    env = os.environ | {"TMPDIR": str(temporary)}
    worker = await start_code(code, temporary, stdout=asyncio.subprocess.PIPE, env=env)
    out, _ = await output_of(worker, 45)
    assert worker.returncode == 0
    assert not runs(next(int(line) for line in out.splitlines() if line.isdigit()))  # the others are its log
