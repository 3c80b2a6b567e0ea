"""Keeping servers apart: limits, private file trees, no network."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from consumer.processes.launch import host_tools
from consumer.processes.launch.bubblewrap import bubblewrap_refusal
from consumer.processes.launch.sandbox import DEFAULT_MEMORY
from consumer.processes.service import Sandbox
from schemas.errors import OutcomeUnknown, StartFailed

from .helpers import SERVERS, Exits, Start, structured, text

node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@pytest.fixture
async def bwrap() -> None:
    if refusal := await bubblewrap_refusal(shutil.which("bwrap")):
        pytest.skip(f"bubblewrap does not work here: {refusal}")


@pytest.mark.parametrize(
    ("written", "expected"),
    [(1024, 1024), ("1024", 1024), ("64k", 65536), ("512M", 512 << 20), ("2G", 2 << 30), ("1.5 GiB", 3 << 29)],
)
def test_sizes_are_bytes_or_have_a_unit(written: object, expected: int) -> None:
    assert Sandbox.model_validate({"memory": written}).memory == expected


@pytest.mark.parametrize("written", ["lots", "-1", "0", "", "1X", -5, 0])
def test_other_sizes_are_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        Sandbox.model_validate({"memory": written})


def test_signalwires_keys_are_read_as_they_are() -> None:
    read = Sandbox.model_validate
    keys = {"enabled": True, "resource_limits": True, "restricted_env": True, "note": "n", "allowed_paths": ["/data"]}
    assert read(keys).kind == "auto"
    assert read(keys).allowed_paths == ["/data"]
    assert read({"enabled": False}).kind == "none"
    assert read({"enabled": True, "resource_limits": "false"}).kind == "none"
    assert read({"kind": "bubblewrap", "enabled": True}).kind == "bubblewrap"


@pytest.mark.parametrize(
    "wrong",
    [
        {"unknown": 1},
        {"enabled": "perhaps"},
        {"kind": "chroot"},
        {"kind": "bubblewrap", "enabled": False},
        {"network": False},
        {"kind": "none", "memory": "1G"},
    ],
)
def test_what_is_contradictory_or_unknown_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Sandbox.model_validate(wrong)


async def test_memory_has_a_limit(start: Start) -> None:
    client = await start(sandbox={"memory": "256M"})
    assert (await client.call_tool("allocate", {"size": 100 << 20})).get("isError") is None
    assert text(await client.call_tool("allocate", {"size": 400 << 20})) == "MemoryError"


async def test_processes_have_a_limit(start: Start, bwrap: None) -> None:
    """Also for a worker that is root, to whom the kernel sets no such limit: its server is another user."""
    client = await start(sandbox={"kind": "auto", "processes": 20})
    result = await client.call_tool("spawn", {"count": 60})
    assert result["isError"] is True
    assert len(structured(result)["pids"]) < 60
    assert text(await client.call_tool("write_file", {"path": "mine", "text": "x"})).endswith("/mine")
    assert (structured(await client.call_tool("cwd"))["uid"] != 0) is True


async def test_files_have_a_limit(start: Start) -> None:
    client = await start(sandbox={"file_size": "1M"})
    assert (await client.call_tool("write_file", {"path": "small", "text": "x"})).get("isError") is None
    assert "too large" in text(await client.call_tool("write_file", {"path": "large", "text": "x" * (2 << 20)}))


async def test_time_has_a_limit(start: Start) -> None:
    client = await start(sandbox={"cpu_seconds": 1})
    exits = Exits()
    client.on_exit(exits)
    with pytest.raises(OutcomeUnknown):
        await client.call_tool("burn", {"seconds": 30})
    assert (await exits.first()).signal in {9, 24}


async def test_by_default_privileges_cannot_be_gained_and_no_core_is_left(start: Start) -> None:
    limited, free = await start(), await start(sandbox={"kind": "none"})
    assert "NoNewPrivs:\t1" in text(await limited.call_tool("read_file", {"path": "/proc/self/status"}))
    assert "NoNewPrivs:\t0" in text(await free.call_tool("read_file", {"path": "/proc/self/status"}))
    limits = text(await limited.call_tool("read_file", {"path": "/proc/self/limits"}))
    assert "Max core file size        0                    0" in limits
    assert f"Max data size             {DEFAULT_MEMORY} " in limits


@node
@pytest.mark.parametrize("settings", [{}, {"memory": "256M"}, {"kind": "bubblewrap"}])
async def test_node_servers_start_under_limits(start: Start, settings: dict[str, object], bwrap: None) -> None:
    client = await start(command=["node", str(SERVERS / "node_server.mjs")], sandbox=settings)
    assert text(await client.call_tool("echo", {"text": "from node"})) == "from node"
    with pytest.raises(Exception, match="fetch failed"):
        await client.call_tool("fetch", {"url": "http://127.0.0.1:1/"})


@node
@pytest.mark.parametrize("below", ["", "src"])
async def test_a_node_script_finds_its_packages_in_a_bubble(
    start: Start, tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch, bwrap: None
) -> None:
    """They are beside the script or above it, also in the worker's own folder, which is not shown as a whole."""
    package, script = tmp_path / "node_modules" / "greeting", tmp_path / below / "server.js"
    package.mkdir(parents=True)
    script.parent.mkdir(exist_ok=True)
    (package / "index.js").write_text("export default 'from a package'\n")
    (package / "package.json").write_text('{"name": "greeting", "type": "module"}')
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "secrets.env").write_text("PASSWORD=x\n")
    server = (SERVERS / "node_server.mjs").read_text()
    secrets = f"new URL('{'../' if below else './'}secrets.env', import.meta.url)"
    look = f"if (existsSync({secrets})) throw new Error('the whole folder is visible')"
    imports = "import { existsSync } from 'node:fs'\nimport greeting from 'greeting'"
    script.write_text(f"{imports}\n{look}\nconsole.error(greeting)\n{server}")
    monkeypatch.chdir(tmp_path)
    client = await start(command=["node", str(script)], sandbox={"kind": "bubblewrap"})
    assert text(await client.call_tool("echo", {"text": "from node"})) == "from node"


@node
async def test_of_a_node_script_that_fails_the_error_is_told_and_not_the_version(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "server.mjs"
    script.write_text("import 'no-such-package'\n")
    with pytest.raises(StartFailed, match=r"\(exit code 1\): Error \[ERR_MODULE_NOT_FOUND\]: Cannot find package 'no-"):
        await start(command=["node", str(script)], sandbox={"kind": "none"})


@pytest.fixture
def poor_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tools, "_found", [host_tools.HostTools(None, None, None)])


async def test_without_the_tools_servers_start_plainly(start: Start, poor_machine: None) -> None:
    client = await start()
    assert text(await client.call_tool("echo", {"text": "x"})) == "x"


async def test_without_the_tools_what_was_asked_for_is_refused(start: Start, poor_machine: None) -> None:
    with pytest.raises(StartFailed, match="bwrap is not installed"):
        await start(sandbox={"kind": "bubblewrap"})


async def test_a_tool_that_does_not_know_what_we_need_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busybox = tmp_path / "setpriv"
    busybox.write_text("#!/bin/sh\necho \"setpriv: unrecognized option '--pdeathsig'\" >&2\nexit 1\n")
    busybox.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(host_tools, "_found", [])
    assert (await host_tools.tools()).setpriv is None


async def test_a_bubblewrap_that_does_not_work_is_refused_and_not_replaced(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(host_tools, "_found", [host_tools.HostTools(None, None, str(broken))])
    with pytest.raises(StartFailed, match="No permissions to create new namespace"):
        await start(sandbox={"kind": "bubblewrap"})


async def test_in_a_bubble_there_is_nothing_but_the_system_and_the_own_folder(start: Start, bwrap: None) -> None:
    client = await start(sandbox={"kind": "bubblewrap"})
    other = await start(sandbox={"kind": "bubblewrap"})
    home = structured(await client.call_tool("cwd"))["cwd"]
    assert structured(await client.call_tool("list_files", {"path": home}))["names"] == []
    assert text(await client.call_tool("write_file", {"path": "mine", "text": "x"})) == f"{home}/mine"
    assert Path(home, "mine").read_text() == "x"
    # Beside its own there is no folder, not even for root.
    assert structured(await client.call_tool("list_files", {"path": str(Path(home).parent)}))["names"] == [
        Path(home).name
    ]
    others_home = structured(await other.call_tool("cwd"))["cwd"]
    for path in (f"{others_home}/x", "/etc/shadow", f"{Path.cwd()}/pyproject.toml", f"{Path.home()}/.bashrc"):
        assert (await client.call_tool("read_file", {"path": path}))["isError"] is True, path
    for path in ("/usr/mine", "/etc/mine", f"{SERVERS}/mine"):
        assert (await client.call_tool("write_file", {"path": path}))["isError"] is True, path
    assert structured(await client.call_tool("cwd"))["pid"] < 10  # its own process namespace


async def test_in_a_bubble_the_network_can_be_had_or_not(start: Start, bwrap: None) -> None:
    listening = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    connected, alone = [
        await (await start(sandbox={"kind": "bubblewrap", "network": network})).call_tool(
            "connect", {"host": "127.0.0.1", "port": port}
        )
        for network in (True, False)
    ]
    listening.close()
    await listening.wait_closed()
    assert text(connected) == "connected"
    assert alone["isError"] is True


async def test_allowed_paths_are_writable_in_a_bubble(start: Start, tmp_path: Path, bwrap: None) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)  # under root a server is another user
    client = await start(sandbox={"kind": "bubblewrap", "allowed_paths": [str(shared)]})
    await client.call_tool("write_file", {"path": f"{shared}/note", "text": "for all"})
    assert (shared / "note").read_text() == "for all"
    (tmp_path / "private").write_text("x")
    assert "private" not in structured(await client.call_tool("list_files", {"path": str(tmp_path)}))["names"]


async def test_limits_bite_in_a_bubble(start: Start, bwrap: None) -> None:
    client = await start(sandbox={"kind": "bubblewrap", "memory": "256M", "processes": 20})
    assert text(await client.call_tool("allocate", {"size": 400 << 20})) == "MemoryError"
    assert (await client.call_tool("spawn", {"count": 60}))["isError"] is True
    assert text(await client.call_tool("write_file", {"path": "mine", "text": "x"})).endswith("/mine")


async def test_nothing_survives_its_bubble(start: Start, bwrap: None) -> None:
    client = await start("echo_server", "--ignore-eof", "--ignore-term", sandbox={"kind": "bubblewrap"})
    assert structured(await client.call_tool("spawn", {"stubborn": True, "escape": True}))["pids"]
    await client.stop()  # the checker of this folder looks for what is left


async def test_the_bundled_server_runs_in_a_bubble(start: Start, bwrap: None) -> None:
    module = ["python3", "-m", "consumer.processes.todo_server"]
    client = await start(command=module, sandbox={"kind": "bubblewrap", "network": False})
    assert structured(await client.call_tool("add_todo", {"text": "milk"}))["id"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could read them")
async def test_root_in_a_bubble_has_no_powers(start: Start, bwrap: None) -> None:
    client = await start(sandbox={"kind": "bubblewrap"})
    assert "CapEff:\t0000000000000000" in text(await client.call_tool("read_file", {"path": "/proc/self/status"}))
