"""A worker keeps to itself what it was started with, and gives its servers no more rights than they need."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from consumer.privacy import kept
from consumer.processes.launch.sandbox import no_bubblewrap
from tests.harness import ECHO, Cluster, config

SECRET = "correct-horse"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="left out: it is about a worker that is root")


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_the_environment_of_a_worker_holds_no_secret_after_its_start(mcp: Cluster) -> None:
    services = {"echo": {"command": ECHO, "env": {"TOKEN": "${TOKEN_OF_SERVICE}"}}}
    mcp.anew = True
    worker = await mcp.start(config(services=services), TOKEN_OF_SERVICE=SECRET)
    if os.geteuid() == 0:  # to all others the kernel shows nothing of it
        assert SECRET.encode() not in environment_of(worker.process.pid)
        assert mcp.url.encode() not in environment_of(worker.process.pid)
    else:
        with pytest.raises(PermissionError):
            environment_of(worker.process.pid)
    await mcp.client.create("c-1", "echo")
    for child in worker.children():
        assert mcp.url.encode() not in environment_of(child.pid)
    found = await mcp.client.call_tool("c-1", "env")
    assert json.loads(found.text)["env"]["TOKEN"] == SECRET


async def test_another_configuration_still_knows_the_variables_of_the_start(mcp: Cluster) -> None:
    worker = await mcp.start(config(), TOKEN_OF_SERVICE=SECRET)
    services = {"other": {"command": ECHO, "env": {"TOKEN": "${TOKEN_OF_SERVICE}"}}}
    (mcp.folder / "worker-0.json").write_text(json.dumps(config(services=services)))
    worker.process.send_signal(signal.SIGHUP)
    await worker.logged("settings.reloaded")
    await mcp.client.create("c-1", "other")
    found = await mcp.client.call_tool("c-1", "env")
    assert json.loads(found.text)["env"]["TOKEN"] == SECRET


def test_what_a_worker_keeps_of_its_environment_is_on_a_list() -> None:
    kept_of = kept(
        {
            "PATH": "/bin",
            "LC_ALL": "C",
            "PYTHONPATH": "/x",
            "HTTPS_PROXY": "http://proxy:3128",
            "HTTP_PROXY": "http://me:secret@proxy:3128",
            "AMQP_URL": "amqp://u:p@x",
            "MCP_SESSIONS_SERVICES": "{}",
            "AWS_SECRET_ACCESS_KEY": "x",
            "OTEL_EXPORTER_OTLP_HEADERS": "x",
        }
    )
    assert set(kept_of) == {"PATH", "LC_ALL", "PYTHONPATH", "HTTPS_PROXY"}


@as_root
async def test_servers_of_root_are_users_without_rights_and_the_worker_says_so(mcp: Cluster) -> None:
    if reason := await no_bubblewrap():
        pytest.skip(f"left out: {reason}")
    services = {"echo": {"command": ECHO}, "root": {"command": ECHO, "sandbox": {"user": "worker"}}}
    sandbox = mcp.folder / "sandbox"
    worker = await mcp.start(config(services=services, session={"sandbox_dir": str(sandbox)}))
    assert (await worker.logged("sandbox.own_users"))["services"] == ["echo"]
    assert (await worker.logged("sandbox.as_root"))["services"] == ["root"]
    users = []
    for call in ("c-1", "c-2"):
        await mcp.client.create(call, "echo")
        users.append(json.loads((await mcp.client.call_tool(call, "cwd")).text)["uid"])
    assert 0 not in users
    assert len(set(users)) == 2
    await mcp.client.close("c-1")
    await mcp.until(lambda: len([one for one in sandbox.glob("*/*") if one.is_dir()]) == 1)
    await mcp.client.create("c-3", "root")
    assert json.loads((await mcp.client.call_tool("c-3", "cwd")).text)["uid"] == 0


async def test_where_there_is_no_bubblewrap_the_worker_says_so_and_why(mcp: Cluster, tmp_path: Path) -> None:
    for name in ("env", "setpriv", "sh"):
        if (found := shutil.which(name)) is not None:
            (tmp_path / name).symlink_to(found)
    worker = await mcp.start(config(), PATH=str(tmp_path))
    warning = await worker.logged("sandbox.no_bubblewrap")
    assert warning["reason"] == "bwrap is not installed"
    assert warning["services"] == ["echo"]
