"""A worker that is killed leaves nothing: neither servers nor what they started nor files."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from consumer.processes.launch.launcher import LocalLauncher

from .helpers import Start, command, runs, structured, until

WORKER = """
import asyncio, sys
from consumer.processes.client.client import MCPClient
from consumer.processes.launch.launcher import LocalLauncher
from consumer.processes.service import MCPService

async def main():
    launcher = LocalLauncher()
    pids = []
    for switches in ([], ["--ignore-eof", "--ignore-term"], ["--ignore-eof", "--ignore-term", "--grandchild"]):
        client = MCPClient(MCPService(command=[*sys.argv[1:], *switches]), launcher=launcher)
        await client.start()
        pids.append(client.process.pid)
    found = await client.call_tool("spawn", {"stubborn": True, "escape": True})
    pids += (await client.call_tool("grandchildren"))["structuredContent"]["pids"]
    print(launcher.base, launcher.warden_pid, *pids, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_a_killed_worker_leaves_nothing_after_three_seconds(temporary: Path) -> None:
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, *command("echo_server")),
        stdout=asyncio.subprocess.PIPE,
        env={"TMPDIR": str(temporary), "PATH": os.environ["PATH"]},
    )
    assert worker.stdout is not None
    base, *numbers = (await asyncio.wait_for(worker.stdout.readline(), 20)).decode().split()
    pids = [int(number) for number in numbers]
    assert len(pids) == 6  # the warden, three servers, two grandchildren, one of them in a session of its own
    assert all(runs(pid) for pid in pids)
    worker.kill()
    killed = time.monotonic()
    await worker.wait()
    await until(lambda: not any(runs(pid) for pid in pids), "processes are left", timeout=3.0)
    await until(lambda: not Path(base).exists(), "the folder is left", timeout=3.0)
    assert time.monotonic() - killed < 3.0


async def test_a_warden_does_not_mind_signals_and_is_replaced_when_killed(
    start: Start, launcher: LocalLauncher
) -> None:
    client = await start("echo_server", "--grandchild")
    warden = launcher.warden_pid
    assert warden is not None
    await until(lambda: b"SigIgn" in Path(f"/proc/{warden}/status").read_bytes(), "no such process")
    await until(lambda: ignores(warden, signal.SIGTERM), "the warden is not ready")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        psutil.Process(warden).send_signal(number)
    assert os.getsid(warden) == warden
    await client.call_tool("echo")
    assert launcher.warden_pid == warden
    psutil.Process(warden).kill()
    await until(lambda: launcher.warden_pid not in {None, warden}, "no new warden")
    assert structured(await client.call_tool("counter")) == {"count": 1}


async def test_a_warden_takes_little_memory(start: Start, launcher: LocalLauncher) -> None:
    await start()
    assert launcher.warden_pid is not None
    await asyncio.sleep(0.2)
    assert psutil.Process(launcher.warden_pid).memory_info().rss < 20 << 20


async def test_an_escaped_grandchild_goes_with_the_worker_at_the_latest(start: Start, launcher: LocalLauncher) -> None:
    client = await start()
    (pid,) = structured(await client.call_tool("spawn", {"stubborn": True, "escape": True}))["pids"]
    await client.stop()
    assert runs(pid)
    await launcher.close()
    await until(lambda: not runs(pid), "the grandchild lives")


def ignores(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("clients", [3])
async def test_one_warden_serves_them_all(start: Start, launcher: LocalLauncher, clients: int) -> None:
    await asyncio.gather(*(start() for _ in range(clients)))
    wardens = [
        child
        for child in psutil.Process().children()
        if any("warden_child" in word for word in child.cmdline()) and child.pid == launcher.warden_pid
    ]
    assert len(wardens) == 1
