"""The Procfile as Heroku runs it: by a Procfile runner, with the variables that CloudAMQP and Heroku set alone."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from consumer.settings.broker_url import VARIABLES
from consumer.settings.environment import PREFIX
from tests.harness import ROOT, WAIT, Cluster

pytestmark = pytest.mark.timeout(240)


class Dyno:
    """The runner, and what the worker below it logged."""

    def __init__(self, runner: asyncio.subprocess.Process) -> None:
        self.runner = runner
        self.records: list[dict[str, Any]] = []

    async def logged(self, event: str) -> dict[str, Any]:
        """Read the log up to this record."""
        assert self.runner.stdout
        async with asyncio.timeout(WAIT):
            async for line in self.runner.stdout:
                with suppress(ValueError):
                    self.records.append(json.loads(line))
                    if self.records[-1].get("event") == event:
                        return self.records[-1]
        raise AssertionError(f"the dyno ended without {event}: {self.records}")


def stop(worker: psutil.Process) -> None:
    """SIGTERM to every process of the dyno that is left, MCP servers included, as Heroku does it, more than once.

    Not to the runner: it would wait for five seconds only.
    """
    with suppress(psutil.NoSuchProcess):
        for process in [worker, *worker.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)


@asynccontextmanager
async def dyno(mcp: Cluster, folder: Path, kind: str = "worker", **variables: str) -> AsyncIterator[Dyno]:
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES and not name.startswith(PREFIX)}
    env |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "CLOUDAMQP_URL": mcp.url,
        "DYNO": f"{kind}.1",
        f"{PREFIX}PREFIX": mcp.prefix,  # the tests share a broker
        **variables,
    }
    (folder / "Procfile").write_text((ROOT / "Procfile").read_text())
    runner = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "honcho", "start", "--no-prefix", "--no-colour", kind,
        env=env,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )  # fmt: skip
    try:
        yield Dyno(runner)
    finally:
        if runner.returncode is None:
            for process in psutil.Process(runner.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            runner.kill()
        await runner.communicate()


async def test_a_call_is_served_by_what_the_procfile_starts(mcp: Cluster, tmp_path: Path) -> None:
    async with dyno(mcp, tmp_path) as running:
        await running.logged("worker.ready")
        await mcp.client.publish_call_event({"call_id": "c-1", "kind": "started", "from": "+15550100"})
        await mcp.event("created", session_id="c-1")
        await mcp.client.call_tool("c-1", "add_todo", {"text": "call back"})
        answer = await mcp.client.call_tool("c-1", "list_todos", {})
        assert "call back" in answer.text

        worker = psutil.Process((await mcp.event("started")).data["pid"])
        stop(worker)
        stop(worker)
        assert await asyncio.wait_for(running.runner.wait(), 40) == 0
        await mcp.event("stopped")
        assert [event.data["reason"] for event in mcp.of("closed", session_id="c-1")] == ["worker_shutdown"]
        assert not mcp.of("died")


async def test_a_web_dyno_is_worker_and_gateway_on_the_port_that_heroku_gives(mcp: Cluster, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    app = json.loads((ROOT / "app.json").read_text())["env"]
    given = {name: told["value"] for name, told in app.items() if "GATEWAY" in name and "value" in told}
    given |= {"PORT": str(port), f"{PREFIX}GATEWAY_AUTH_USER": "agent", f"{PREFIX}GATEWAY_AUTH_PASSWORD": "secret"}
    async with dyno(mcp, tmp_path, "web", **given) as running:
        await running.logged("worker.ready")
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/sessions")).status_code == 401
            http.auth = ("agent", "secret")
            sent = await http.post("/signalwire/events", json={"call_id": "c-1", "kind": "started"}, timeout=30)
            assert sent.status_code == 204, sent.text
            await mcp.event("created", session_id="c-1")
            asked = {"tool": "add_todo", "session_id": "c-1", "arguments": {"text": "call back"}}
            assert (await http.post("/services/todo/call", json=asked, timeout=30)).status_code == 200
        worker = psutil.Process((await mcp.event("started")).data["pid"])
        stop(worker)
        assert await asyncio.wait_for(running.runner.wait(), 40) == 0
