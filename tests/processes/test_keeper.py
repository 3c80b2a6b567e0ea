"""A worker that is killed leaves nothing: neither servers nor what they started nor files."""

import asyncio
import os
import signal

import psutil
import pytest

from consumer.processes.launch.launcher import LocalLauncher
from schemas.errors import OutcomeUnknown

from .helpers import Exits, Start, runs, structured, until


@pytest.mark.parametrize("how", [{}, {"escape": True}, {"daemon": True}, {"daemon": True, "clean": True}])
@pytest.mark.parametrize("end", ["stop", "die"])
async def test_whatever_a_session_has_started_ends_with_it(start: Start, how: dict[str, bool], end: str) -> None:
    """Also what left its session (a browser does), forked twice (a daemon does), and forgot its environment."""
    client, other = await start(), await start()
    (pid,) = structured(await client.call_tool("spawn", {"stubborn": True, **how}))["pids"]
    (kept,) = structured(await other.call_tool("spawn", {"stubborn": True, **how}))["pids"]
    if end == "stop":
        await client.stop()
    else:
        with pytest.raises(OutcomeUnknown):
            await client.call_tool("die")
    await until(lambda: not runs(pid), "the grandchild lives", timeout=10.0)
    assert runs(kept)
    assert structured(await other.call_tool("counter")) == {"count": 1}


async def test_a_server_that_gives_up_being_a_subreaper_only_loses_its_orphans_sooner(start: Start) -> None:
    client = await start()
    (pid,) = structured(await client.call_tool("spawn", {"stubborn": True, "daemon": True, "shed": True}))["pids"]
    await until(lambda: not runs(pid), "the orphan lives", timeout=10.0)
    assert structured(await client.call_tool("counter")) == {"count": 1}


async def test_a_keeper_does_not_mind_signals(start: Start, launcher: LocalLauncher) -> None:
    await start()
    keeper = launcher.keeper_pid
    assert keeper is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        psutil.Process(keeper).send_signal(number)
    assert os.getsid(keeper) == keeper
    await start()
    assert launcher.keeper_pid == keeper


async def test_a_killed_keeper_takes_its_servers_with_it_and_is_replaced(start: Start, launcher: LocalLauncher) -> None:
    client = await start("echo_server", "--ignore-eof", "--ignore-term")
    exits = Exits()
    client.on_exit(exits)
    (escaped,) = structured(await client.call_tool("spawn", {"stubborn": True, "escape": True}))["pids"]
    keeper = launcher.keeper_pid
    assert keeper is not None
    assert client.process is not None
    psutil.Process(keeper).kill()
    assert (await exits.first()).signal == signal.SIGKILL
    await until(lambda: not runs(client.process.pid if client.process else 0), "the server lives")
    await until(lambda: launcher.keeper_pid not in {None, keeper}, "no new keeper")
    await until(lambda: not runs(escaped), "what carries the mark lives")
    assert structured(await (await start()).call_tool("counter")) == {"count": 1}


async def test_a_keeper_takes_little_memory(start: Start, launcher: LocalLauncher) -> None:
    await start()
    assert launcher.keeper_pid is not None
    assert psutil.Process(launcher.keeper_pid).memory_info().rss < 20 << 20


async def test_one_keeper_serves_them_all(start: Start, launcher: LocalLauncher) -> None:
    clients = await asyncio.gather(*(start() for _ in range(3)))
    assert launcher.keeper_pid is not None
    below = {child.pid for child in psutil.Process(launcher.keeper_pid).children()}
    assert below == {client.process.pid for client in clients if client.process}
