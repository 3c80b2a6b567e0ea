"""Sessions that are forked from a helper which has imported the server: like others in all but their start."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import structlog

from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.fork.fork_launcher import ForkLauncher, PythonCommand
from consumer.processes.mcp_manager import MCPManager
from consumer.processes.service import MCPService
from schemas.errors import OutcomeUnknown
from tests.harness import OPEN

from .helpers import SERVERS, Exits, command, runs, service, structured, until

ECHO = "echo_server:main"


@pytest.fixture
async def manager() -> AsyncIterator[MCPManager]:
    async with MCPManager({"svc": service(fork_server=ECHO)}) as made:
        yield made


def helpers() -> list[psutil.Process]:
    """The fork servers that run below us."""
    below = psutil.Process().children(recursive=True)
    both = {child.pid: child for child in below if "fork/child.py" in " ".join(child.cmdline())}
    return [child for child in both.values() if child.ppid() not in both]


def process_of(client: MCPClient) -> psutil.Process:
    assert client.process is not None
    return psutil.Process(client.process.pid)


async def test_a_session_is_a_fork_in_a_session_and_folder_of_its_own(manager: MCPManager) -> None:
    client = await manager.create_client("svc")
    assert client.start_kind == "forked"
    process = process_of(client)
    (helper,) = helpers()
    assert process.ppid() == helper.pid
    assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
    home = Path(structured(await client.call_tool("cwd"))["cwd"])
    env = structured(await client.call_tool("env"))["env"]
    assert env["HOME"] == env["TMPDIR"] == str(home)
    await client.stop()
    assert client.process is not None
    assert client.process.poll() == 0
    assert not home.exists()
    assert not runs(process.pid)
    assert runs(helper.pid)


async def test_forks_share_neither_state_nor_environment_nor_chance(tmp_path: Path) -> None:
    (tmp_path / "dice.py").write_text(
        "import os, random, sys, tempfile\n"
        f"sys.path.append({str(SERVERS)!r})\n"
        "import echo_server\n"
        "def main():\n"
        "    open('thrown', 'w').write(f'{random.random()} {tempfile.gettempdir()}')\n"
        "    echo_server.main()\n"
    )
    one = service(command=[sys.executable, str(tmp_path / "dice.py")], fork_server="dice:main", env={"SECRET": "one"})
    two = one.model_copy(update={"env": {"OTHER": "two"}})
    async with MCPManager({"one": one, "two": two}) as manager:
        clients = [await manager.create_client(name) for name in ("one", "one", "two")]
        assert {client.start_kind for client in clients} == {"forked"}
        for _ in range(2):
            await clients[0].call_tool("counter")
        assert structured(await clients[1].call_tool("counter"))["count"] == 1
        envs = [structured(await client.call_tool("env"))["env"] for client in clients]
        assert [(env.get("SECRET"), env.get("OTHER")) for env in envs] == [("one", None), ("one", None), (None, "two")]
        thrown = [Path(env["HOME"], "thrown").read_text().split() for env in envs]
        assert len({number for number, _ in thrown}) == 3
        assert [folder for _, folder in thrown] == [env["HOME"] for env in envs]
        assert len(helpers()) == 2


async def test_the_commands_arguments_are_the_functions(manager: MCPManager) -> None:
    async with MCPManager({"svc": service("echo_server", "--pages", "2", fork_server=ECHO)}) as paged:
        client = await paged.create_client("svc")
        assert client.start_kind == "forked"
        assert len(client.tools) == 2


async def test_limits_hold_after_the_fork() -> None:
    sandbox = {"memory": "512M", "file_size": "1M", "cpu_seconds": 60}
    async with MCPManager({"svc": service(fork_server=ECHO, sandbox=sandbox)}) as manager:
        process = process_of(await manager.create_client("svc"))
        assert process.rlimit(psutil.RLIMIT_DATA) == (512 << 20, 512 << 20)
        assert process.rlimit(psutil.RLIMIT_FSIZE) == (1 << 20, 1 << 20)
        assert process.rlimit(psutil.RLIMIT_CPU) == (60, 60)
        assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert "NoNewPrivs:\t1" in Path(f"/proc/{process.pid}/status").read_text()
        (helper,) = helpers()
        assert helper.rlimit(psutil.RLIMIT_DATA) != (512 << 20, 512 << 20)


async def test_its_memory_can_be_read(manager: MCPManager) -> None:
    process = process_of(await manager.create_client("svc"))
    memory = process.memory_full_info()
    assert 0 < memory.pss < memory.rss


async def test_descriptors_are_not_inherited(manager: MCPManager) -> None:
    clients = [await manager.create_client("svc") for _ in range(3)]
    for client in clients:
        opened = [str(one.readlink()) for one in Path(f"/proc/{process_of(client).pid}/fd").iterdir()]
        assert len([one for one in opened if "libffi" not in one]) == 3, opened  # ctypes opens its own library


async def test_the_end_of_a_fork_is_told_with_its_last_words(manager: MCPManager) -> None:
    for how, seen in (({"code": 7}, (7, None)), ({"signal_number": 11}, (None, 11))):
        client = await manager.create_client("svc")
        exits = Exits()
        client.on_exit(exits)
        with pytest.raises(OutcomeUnknown, match="die"):
            await client.call_tool("die", {**how, "stderr": "out of luck"})
        exit_seen = await exits.first(timeout=20.0)
        assert (exit_seen.exit_code, exit_seen.signal) == seen
        assert exit_seen.stderr == "out of luck"
        assert not runs(process_of_pid(client))


def process_of_pid(client: MCPClient) -> int:
    assert client.process is not None
    return client.process.pid


async def test_what_a_fork_has_started_ends_with_it() -> None:
    async with MCPManager({"svc": service("echo_server", "--grandchild", fork_server=ECHO)}) as manager:
        client = await manager.create_client("svc")
        (grandchild,) = structured(await client.call_tool("grandchildren"))["pids"]
        with pytest.raises(OutcomeUnknown):
            await client.call_tool("die")
        await until(lambda: not runs(grandchild), "the grandchild lives")


async def test_a_stubborn_fork_ends_too() -> None:
    switches = ("--ignore-eof", "--ignore-term")
    async with MCPManager({"svc": service("echo_server", *switches, fork_server=ECHO)}) as manager:
        client = await manager.create_client("svc")
        assert client.start_kind == "forked"
        await client.stop()
        assert client.process is not None
        assert client.process.poll() == -signal.SIGKILL


async def test_what_is_imported_late_is_there_after_a_rehearsal(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import os, sys\n"
        f"sys.path.append({str(SERVERS)!r})\n"
        "import echo_server\n"
        "def main():\n"
        "    open('seen', 'w').write(str('colorsys' in sys.modules))\n"
        "    import colorsys\n"
        "    echo_server.main()\n"
    )
    script = [sys.executable, str(tmp_path / "late.py")]
    async with MCPManager({"svc": service(command=script, fork_server="late:main")}) as manager:
        client = await manager.create_client("svc")
        home = structured(await client.call_tool("cwd"))["cwd"]
        assert Path(home, "seen").read_text() == "True"


async def test_a_coroutine_function_is_run(tmp_path: Path) -> None:
    (tmp_path / "soon.py").write_text(
        f"import sys\nsys.path.append({str(SERVERS)!r})\n"
        "import asyncio, echo_server\n"
        "async def main():\n    await asyncio.sleep(0)\n    echo_server.main()\n"
    )
    script = [sys.executable, str(tmp_path / "soon.py")]
    async with MCPManager({"svc": service(command=script, fork_server="soon:main")}) as manager:
        assert (await manager.create_client("svc")).start_kind == "forked"


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("echo_server:nothing", "AttributeError"),
        ("no_such_module:main", "ModuleNotFoundError"),
        ("threaded:main", "threads"),
        ("quitting:main", "SystemExit"),
        ("crashing:main", "ended"),
        ("slow:main", "not ready within"),
    ],
)
async def test_a_server_that_cannot_be_forked_is_started(tmp_path: Path, function: str, why: str) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nmain = print\n"
    )
    (tmp_path / "quitting.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "crashing.py").write_text("import os\nos.abort()\n")
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    env = {"PYTHONPATH": str(tmp_path)}
    timeout = 2.0 if why == "not ready within" else 20.0
    one = service(fork_server=function, env=env, start_timeout=timeout)
    with structlog.testing.capture_logs() as logs:
        async with MCPManager({"svc": one}) as manager:
            clients = await asyncio.gather(*(manager.create_client("svc") for _ in range(3)))
            clients.append(await manager.create_client("svc"))
            assert [client.start_kind for client in clients] == ["cold"] * 4
            assert not helpers()
    (warning,) = [log for log in logs if log["event"] == "forkserver.unusable"]
    assert why in warning["why"]


async def test_a_command_that_is_not_python_is_started() -> None:
    shell = ["/bin/sh", "-c", f"exec {' '.join(command('echo_server'))}"]
    async with MCPManager({"svc": service(command=shell, fork_server=ECHO)}) as manager:
        assert (await manager.create_client("svc")).start_kind == "cold"


async def test_a_helper_that_dies_takes_its_sessions_and_is_replaced_in_time(
    manager: MCPManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await manager.create_client("svc")
    exits = Exits()
    client.on_exit(exits)
    (helper,) = helpers()
    with structlog.testing.capture_logs() as logs:
        helper.kill()
        assert (await exits.first(timeout=20.0)).signal == signal.SIGKILL
        await until(lambda: not runs(process_of_pid(client)), "the fork lives")
        await until(lambda: [log for log in logs if log["event"] == "forkserver.unusable"], "nobody is told")
    assert (await manager.create_client("svc")).start_kind == "cold"
    monkeypatch.setattr("consumer.processes.fork.fork_launcher.ForkLauncher._rests", lambda *_: False)
    assert (await manager.create_client("svc")).start_kind == "forked"


async def test_a_cancelled_start_leaves_no_fork(manager: MCPManager) -> None:
    await manager.create_client("svc")
    (helper,) = helpers()
    for wait in (0.0, 0.002, 0.005, 0.01, 0.02):
        start = asyncio.create_task(manager.create_client("svc"))
        await asyncio.sleep(wait)
        start.cancel()
        await asyncio.wait({start})
        if not start.cancelled():
            await start.result().stop()
    await until(lambda: len(helper.children()) == 1, "a fork is left")


@pytest.mark.parametrize("wait", [0.0, 0.05])
async def test_a_shutdown_while_the_helper_starts_leaves_nothing(wait: float) -> None:
    launcher = ForkLauncher()
    launcher.prepare(service(fork_server=ECHO))
    await asyncio.sleep(wait)
    await launcher.close()


def changed(filled: asyncio.Event, pool: MCPManager) -> None:
    if pool.warm("svc") == 2:
        filled.set()


async def test_warm_forks(manager: MCPManager) -> None:
    warm = service(fork_server=ECHO, warm={"min": 2, "max": 2})
    filled = asyncio.Event()
    async with MCPManager({"svc": warm}, warm_changed=lambda: changed(filled, pool)) as pool:
        pool.warm_up()
        async with asyncio.timeout(45):
            await filled.wait()
        client = await pool.create_client("svc")
        assert client.start_kind == "warm"
        assert process_of(client).ppid() == helpers()[0].pid


async def test_a_killed_worker_leaves_no_helper_and_no_fork(temporary: Path) -> None:
    code = f"""
import asyncio, structlog
from consumer.processes.mcp_manager import MCPManager
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
async def main():
    async with MCPManager({{"svc": {{
        "command": {command("echo_server", "--ignore-eof", "--grandchild")!r}, "fork_server": {ECHO!r},
        "sandbox": {OPEN!r},
    }}}}) as manager:
        clients = await asyncio.gather(*(manager.create_client("svc") for _ in range(3)))
        (pid,) = (await clients[0].call_tool("grandchildren"))["structuredContent"]["pids"]
        print(clients[0].start_kind, pid, *(client.process.pid for client in clients), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env={"TMPDIR": str(temporary)}
    )
    assert worker.stdout is not None
    try:
        kind, *pids = (await asyncio.wait_for(worker.stdout.readline(), 45)).split()
    finally:
        worker.kill()
        await worker.wait()
    assert kind == b"forked"
    await until(lambda: not any(runs(int(pid)) for pid in pids), "a fork or its child lives", timeout=10.0)
    await until(lambda: not list(temporary.glob("mcp-sessions-*")), "a folder is left")


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        (["/x/python3", "/s/a.py", "-v"], PythonCommand(("/x/python3",), ("/s/a.py", "-v"), "/s")),
        (
            ["/x/python", "-u", "-X", "dev", "-m", "a.b", "c"],
            PythonCommand(("/x/python", "-u", "-X", "dev"), ("a.b", "c")),
        ),
        (["/x/python3.11", "-c", "pass", "c"], PythonCommand(("/x/python3.11",), ("-c", "c"))),
        (["/x/python3"], None),
        (["/bin/sh", "-c", "python3 a.py"], None),
    ],
)
def test_how_a_command_is_read(written: list[str], understood: PythonCommand | None) -> None:
    assert PythonCommand.read(written) == understood


@pytest.mark.parametrize("first", [f"#!{sys.executable}", f"#!/usr/bin/env {sys.executable}"])
def test_a_script_names_its_interpreter(tmp_path: Path, first: str) -> None:
    script = tmp_path / "server"
    script.write_text(f"{first}\nprint()\n")
    read = PythonCommand.read([str(script), "--flag"])
    assert read == PythonCommand((sys.executable,), (str(script), "--flag"), str(tmp_path))


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://x", "fork_server": ECHO},
        {"command": ["x"], "fork_server": "main"},
        {"command": ["x"], "fork_server": ECHO, "sandbox": {"kind": "bubblewrap"}},
    ],
)
def test_what_cannot_be_forked_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="fork_server"):
        MCPService.model_validate(wrong)
