"""Starting a client: what a session gets, and what is said when it gets nothing."""

import asyncio
import errno
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from consumer.processes.client.era import Era
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.launch.keeper import Keeper
from consumer.processes.launch.launcher import LocalLauncher
from schemas.errors import SessionDied, StartFailed, StartTimeout

from .helpers import Start, command, runs, service, structured, text


async def test_a_started_client_knows_its_server_and_its_tools(start: Start) -> None:
    client = await start()
    assert client.is_alive
    assert client.process is not None
    assert client.process.poll() is None
    assert runs(client.process.pid)
    assert {"echo", "counter", "sleep"} <= {tool["name"] for tool in client.tools}
    assert await client.get_tools() == client.tools
    assert client.session.protocol_version == "2025-11-25"
    assert client.session.server_info is not None
    assert client.session.server_info.name == "echo"


async def test_a_server_lives_in_a_folder_of_its_own(start: Start, temporary: Path) -> None:
    one, other = await start(), await start()
    homes = []
    for client in (one, other):
        seen = structured(await client.call_tool("cwd"))
        environment = structured(await client.call_tool("env"))["env"]
        home = Path(environment["HOME"])
        assert {environment[name] for name in ("TMPDIR", "TMP", "TEMP")} == {str(home)} == {seen["cwd"]}
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE(home.parent.stat().st_mode) == 0o311
        homes.append(home)
    assert homes[0] != homes[1]
    await one.call_tool("write_file", {"path": "mine", "text": "x"})
    assert not (homes[1] / "mine").exists()
    await one.stop()
    assert not homes[0].exists()
    assert homes[1].exists()


async def test_the_environment_is_minimal(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://user:secret@broker/")
    monkeypatch.setenv("NODE_PATH", "/somewhere/node")
    for name in ("PYTHONPATH", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    client = await start(env={"API_KEY": "k", "LANG": "de_DE.UTF-8"})
    environment = structured(await client.call_tool("env"))["env"]
    assert not [name for name, value in environment.items() if "amqp" in (name + value).lower()]
    ours = {"PATH", "HOME", "TMPDIR", "TMP", "TEMP", "USER", "LOGNAME", "LANG", "MCP_SESSIONS_WORKER"}
    assert set(environment) - {"LC_CTYPE"} == ours | {"NODE_PATH", "API_KEY"}
    assert environment["API_KEY"] == "k"
    assert environment["LANG"] == "de_DE.UTF-8"
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


async def test_python3_is_the_interpreter_of_the_worker(start: Start) -> None:
    client = await start(command=["python3", *command("echo_server")[1:]])
    assert client.process is not None
    assert Path(psutil.Process(client.process.pid).cmdline()[0]) == Path(sys.executable).with_name("python3")


async def test_relative_scripts_are_those_of_the_workers_folder(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(command("echo_server")[1])
    monkeypatch.chdir(script.parents[1])
    client = await start(command=["python3", f"./{script.parent.name}/{script.name}"])
    assert text(await client.call_tool("echo", {"text": "found"})) == "found"


async def test_a_working_directory_can_be_given(start: Start, tmp_path: Path) -> None:
    client = await start(sandbox={"working_dir": str(tmp_path)})
    seen = structured(await client.call_tool("cwd"))["cwd"]
    home = structured(await client.call_tool("env"))["env"]["HOME"]
    assert seen == str(tmp_path)
    assert home != seen
    with pytest.raises(StartFailed, match="working_dir"):
        await start(sandbox={"working_dir": str(tmp_path / "nowhere")})


async def test_a_missing_command_is_said_at_once(start: Start) -> None:
    started = time.monotonic()
    with pytest.raises(StartFailed, match=r"no program 'no-such-server'.*Install it") as caught:
        await start(command=["no-such-server", "--port", "1"])
    assert time.monotonic() - started < 10
    assert caught.value.details["exit_code"] is None


async def test_a_server_that_crashes_says_why(start: Start) -> None:
    started = time.monotonic()
    with pytest.raises(StartFailed) as caught:
        await start("crash")
    assert time.monotonic() - started < 20
    assert "exit code 1" in caught.value.message
    assert caught.value.message.endswith("ModuleNotFoundError: No module named 'a_module_that_nobody_has'")
    assert caught.value.details["exit_code"] == 1
    assert caught.value.details["signal"] is None
    assert caught.value.details["stderr"].startswith("Traceback (most recent call last)")


async def test_a_script_that_is_not_there_is_looked_for_in_our_own_folder(start: Start) -> None:
    with pytest.raises(StartFailed) as caught:
        await start(command=[sys.executable, "nobody_has_this.py"])
    assert caught.value.message.endswith(
        f"its command names 'nobody_has_this.py', which is not in {Path.cwd()}, the folder of this process"
    )


async def test_a_crash_is_not_tried_again(start: Start, tmp_path: Path) -> None:
    seen = tmp_path / "starts"
    code = f"open({str(seen)!r}, 'a').write('x'); raise SystemExit('no licence')"
    with pytest.raises(StartFailed, match="no licence"):
        await start(command=[sys.executable, "-c", code])
    assert seen.read_text() == "x"


async def test_a_death_by_signal_is_tried_once_more(start: Start, tmp_path: Path) -> None:
    seen = tmp_path / "starts"
    code = f"open({str(seen)!r}, 'a').write('x'); import os; os.kill(os.getpid(), 9)"
    with pytest.raises(StartFailed, match="signal 9") as caught:
        await start(command=[sys.executable, "-c", code])
    assert caught.value.details["signal"] == 9
    assert seen.read_text() == "xx"


async def test_a_machine_that_is_busy_is_asked_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [OSError(errno.EAGAIN, "Resource temporarily unavailable")] * 2

    def busy(*arguments: Any, **more: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return start_job(*arguments, **more)

    start_job = Keeper.start
    monkeypatch.setattr(Keeper, "start", busy)
    client = await start()
    assert client.is_alive
    refusals += [OSError(errno.EPERM, "Operation not permitted")]
    with pytest.raises(StartFailed, match=r"cannot be started: .*Operation not permitted"):
        await start()


async def test_a_server_that_never_answers_is_given_up_and_gone(start: Start) -> None:
    started = time.monotonic()
    with pytest.raises(StartTimeout, match=r"within 2 s") as caught:
        await start("mute", start_timeout=2)
    assert time.monotonic() - started < 20
    assert caught.value.details["stderr"] == "still loading the model ..."


async def test_a_server_that_talks_first_is_understood(start: Start) -> None:
    client = await start("echo_server", "--noise", "900")
    assert client.tools


async def test_a_server_that_talks_and_talks_is_given_up(start: Start) -> None:
    with pytest.raises(StartFailed, match="1000 lines to stdout that are not JSON-RPC"):
        await start("echo_server", "--noise", "2000")


async def test_a_flood_on_stderr_does_not_stop_a_start(start: Start) -> None:
    client = await start("echo_server", "--stderr", "1000000")
    assert client.process is not None
    assert client.process.stderr.last_line() == "the end"


async def test_an_old_server_that_dies_of_the_probe_is_started_again_as_old(start: Start) -> None:
    client = await start("echo_server", "--die-on-probe")
    assert client.era is Era.HANDSHAKE


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.processes.client.protocol_versions.PROBE_TIMEOUT", 0.4)


async def test_an_old_server_that_is_silent_on_the_probe_starts_after_it(start: Start, impatient: None) -> None:
    client = await start("echo_server", "--silent")
    assert client.era is Era.HANDSHAKE


async def test_a_known_era_is_not_asked_for(launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.processes.client.protocol_versions.PROBE_TIMEOUT", 20.0)
    client = MCPClient(service("echo_server", "--silent"), launcher=launcher, known_era=Era.HANDSHAKE)
    started = time.monotonic()
    await client.start()
    assert time.monotonic() - started < 20
    await client.stop()


async def test_a_modern_server_is_met_as_one(start: Start) -> None:
    client = await start("modern_server")
    assert client.era is Era.MODERN
    assert client.session.protocol_version == "2026-07-28"
    assert "bad_header" not in {tool["name"] for tool in client.tools}


async def test_a_modern_server_that_starts_slower_than_the_probe_is_met_as_one(start: Start, impatient: None) -> None:
    client = await start("modern_server", "--slow-start", "1")
    assert client.era is Era.MODERN
    assert text(await client.call_tool("echo", {"text": "x"})) == "x"


async def test_a_server_from_the_future_is_refused(start: Start) -> None:
    with pytest.raises(StartFailed, match="Unsupported protocol version"):
        await start("modern_server", "--versions", "2031-01-01")


async def test_a_server_that_forgets_its_capabilities_has_tools_all_the_same(start: Start) -> None:
    client = await start("echo_server", "--no-capabilities")
    assert "echo" in {tool["name"] for tool in client.tools}


async def test_tools_are_gathered_from_all_pages(start: Start) -> None:
    client = await start("echo_server", "--pages", "40")
    assert len(client.tools) == 40


async def test_a_cursor_that_repeats_ends_the_listing(start: Start) -> None:
    client = await start("echo_server", "--repeat-cursor")
    assert len(client.tools) == 1


async def test_a_client_is_started_once(start: Start) -> None:
    client = await start()
    with pytest.raises(RuntimeError, match="once"):
        await client.start()


async def test_a_cancelled_start_leaves_nothing(launcher: LocalLauncher) -> None:
    client = MCPClient(service("mute"), launcher=launcher)
    starting = asyncio.create_task(client.start())
    async with asyncio.timeout(45):
        while client.process is None:
            await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    pid = client.process.pid
    await client.stop()
    assert not runs(pid)
    with pytest.raises(SessionDied):
        await client.call_tool("echo")


async def test_a_start_can_be_stopped(launcher: LocalLauncher) -> None:
    client = MCPClient(service("mute"), launcher=launcher)
    starting = asyncio.create_task(client.start())
    await asyncio.sleep(0)
    await client.stop()
    with pytest.raises(StartFailed, match="stopped"):
        await starting


async def test_without_a_launcher_a_client_has_its_own() -> None:
    client = MCPClient(service())
    await client.start()
    assert text(await client.call_tool("echo", {"text": "alone"})) == "alone"
    await client.stop()
