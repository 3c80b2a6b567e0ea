"""Ends: asked for, by the server's own doing, and by ours when it misbehaves."""

import asyncio
import signal
import time
from pathlib import Path

import psutil
import pytest

from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.launch.launcher import LocalLauncher
from schemas.errors import OutcomeUnknown, SessionDied

from .helpers import Exits, Start, runs, service, structured, text, until


async def test_a_server_that_listens_leaves_by_itself(start: Start) -> None:
    client = await start()
    exits = Exits()
    client.on_exit(exits)
    assert client.process is not None
    await client.stop()
    assert client.process.poll() == 0  # no signal has ended it
    assert not client.is_alive
    assert exits.seen == []  # it was asked for


async def test_stop_is_idempotent_and_may_come_at_any_time(start: Start, launcher: LocalLauncher) -> None:
    client = await start()
    await asyncio.gather(client.stop(), client.stop())
    await client.stop()
    await MCPClient(service(), launcher=launcher).stop()
    with pytest.raises(SessionDied, match="closed"):
        await client.call_tool("echo")


async def test_a_server_that_ignores_eof_is_asked_again(start: Start) -> None:
    client = await start("echo_server", "--ignore-eof")
    assert client.process is not None
    started = time.monotonic()
    await client.stop()
    assert client.process.poll() == -signal.SIGTERM
    assert time.monotonic() - started > 1.4


async def test_a_server_that_ignores_eof_and_term_ends_too(start: Start) -> None:
    client = await start("echo_server", "--ignore-eof", "--ignore-term")
    assert client.process is not None
    started = time.monotonic()
    await client.stop()
    assert client.process.poll() == -signal.SIGKILL
    assert time.monotonic() - started > 2.4


async def test_a_stopped_server_ends_too(start: Start) -> None:
    client = await start()
    assert client.process is not None
    psutil.Process(client.process.pid).suspend()
    await client.stop()
    assert not runs(client.process.pid)


async def test_what_a_server_has_started_ends_with_it(start: Start) -> None:
    client = await start("echo_server", "--grandchild")
    (grandchild,) = structured(await client.call_tool("grandchildren"))["pids"]
    assert runs(grandchild)
    await client.stop()
    await until(lambda: not runs(grandchild), "the grandchild lives")


async def test_what_a_server_has_started_ends_when_the_server_dies(start: Start) -> None:
    client = await start("echo_server", "--grandchild")
    exits = Exits()
    client.on_exit(exits)
    (grandchild,) = structured(await client.call_tool("grandchildren"))["pids"]
    with pytest.raises(OutcomeUnknown):
        await client.call_tool("die")
    await exits.first()
    await until(lambda: not runs(grandchild), "the grandchild lives")


async def test_thirty_two_stop_as_fast_as_one(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.processes.stdio.process.EOF_TIMEOUT", 0.5)
    clients = await asyncio.gather(*(start("echo_server", "--ignore-eof") for _ in range(32)))
    stopping = [asyncio.create_task(client.stop()) for client in clients]
    await asyncio.wait(stopping, return_when=asyncio.FIRST_COMPLETED)
    for client in clients:  # when the first has stopped, all have been asked
        assert client.process is not None
        assert client.process._ending
    await asyncio.gather(*stopping)


async def test_read_only_files_go_with_the_folder(start: Start) -> None:
    client = await start()
    home = Path(structured(await client.call_tool("cwd"))["cwd"])
    await client.call_tool("lock_files")
    assert (home / "locked" / "file").exists()
    await client.stop()
    assert not home.exists()


async def test_death_is_noticed_when_it_happens(start: Start) -> None:
    client = await start()
    exits = Exits()
    client.on_exit(exits)
    assert client.process is not None
    psutil.Process(client.process.pid).kill()
    seen = await exits.first(timeout=20.0)
    assert (seen.exit_code, seen.signal) == (None, 9)
    assert not client.is_alive
    assert client.exit == seen
    with pytest.raises(SessionDied, match="signal 9") as caught:
        await client.call_tool("echo")
    assert caught.value.details["signal"] == 9
    late = Exits()
    client.on_exit(late)
    assert await late.first() == seen
    await client.stop()
    assert exits.seen == [seen]


async def test_a_call_under_which_the_server_died_has_an_unknown_outcome(start: Start) -> None:
    client = await start()
    exits = Exits()
    client.on_exit(exits)
    other = asyncio.create_task(client.call_tool("sleep", {"seconds": 30}))
    await client.call_tool("echo")  # behind it in the pipe
    with pytest.raises(OutcomeUnknown, match="tools/call die") as caught:
        await client.call_tool("die", {"code": 7, "stderr": "out of luck"})
    assert caught.value.details == {"exit_code": 7, "signal": None, "stderr": "out of luck"}
    with pytest.raises(OutcomeUnknown):
        await other
    assert (await exits.first()).stderr == "out of luck"


async def test_the_folder_of_a_dead_server_goes_without_a_stop(start: Start) -> None:
    client = await start()
    home = Path(structured(await client.call_tool("cwd"))["cwd"])
    with pytest.raises(OutcomeUnknown):
        await client.call_tool("die")
    await until(lambda: not home.exists(), "the folder is left")


async def test_a_call_in_flight_when_the_session_is_closed_has_an_unknown_outcome(start: Start) -> None:
    client = await start()
    call = asyncio.create_task(client.call_tool("sleep", {"seconds": 30}))
    await client.call_tool("echo")
    await client.stop()
    with pytest.raises(OutcomeUnknown):
        await call


async def test_a_line_over_the_cap_ends_the_session_and_says_so(launcher: LocalLauncher) -> None:
    client = MCPClient(service(), launcher=launcher, line_cap=100_000)
    await client.start()
    exits = Exits()
    client.on_exit(exits)
    with pytest.raises(OutcomeUnknown, match="big"):
        await client.call_tool("big", {"size": 200_000})
    seen = await exits.first()
    assert seen.stderr.endswith("because it wrote a line of more than 100000 bytes to stdout")
    await client.stop()


async def test_endless_nonsense_ends_the_session_and_says_so(start: Start) -> None:
    client = await start()
    exits = Exits()
    client.on_exit(exits)
    with pytest.raises(OutcomeUnknown):
        await client.call_tool("stdout", {"times": 1_000_000})
    assert "1000 lines to stdout that are not JSON-RPC" in (await exits.first()).stderr


async def test_a_server_that_closes_its_stdout_is_ended(start: Start) -> None:
    client = await start()
    exits = Exits()
    client.on_exit(exits)
    with pytest.raises(OutcomeUnknown):
        await client.call_tool("close_stdout")
    assert "closed its stdout" in (await exits.first()).stderr


async def test_an_exit_callback_that_fails_does_not_keep_the_others_from_knowing(start: Start) -> None:
    client = await start()
    exits = Exits()

    def failing(_exit: object) -> None:
        raise ValueError("mine")

    client.on_exit(failing)
    client.on_exit(exits)
    with pytest.raises(OutcomeUnknown):
        await client.call_tool("die")
    await exits.first()


async def test_where_term_goes_to_everybody_servers_do_not_hear_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.processes.stdio.process.TERM_TIMEOUT", 60.0)
    launcher = LocalLauncher(ignore_term=True)
    client = MCPClient(service("echo_server", "--ignore-eof"), launcher=launcher)
    await client.start()
    assert client.process is not None
    psutil.Process(client.process.pid).terminate()
    assert text(await client.call_tool("echo", {"text": "still here"})) == "still here"
    started = time.monotonic()
    await client.stop()
    assert client.process.poll() == -signal.SIGKILL
    assert time.monotonic() - started < 30
    await launcher.close()


async def test_heroku_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNO", "worker.1")
    client = MCPClient(service())
    await client.start()
    assert client.process is not None
    psutil.Process(client.process.pid).terminate()
    assert text(await client.call_tool("echo", {"text": "still here"})) == "still here"
    await client.stop()
