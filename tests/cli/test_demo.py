"""The demo from end to end, as it is started by people, and what is left of it: nothing."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from consumer.demo import stage
from consumer.demo.script import PARTS
from consumer.demo.watch import DemoFailed, Watch
from tests.cli.conftest import Cli
from tests.programs import Process

pytestmark = pytest.mark.timeout(240)


class Demo:
    """A demo that runs: what it says, line by line, and which processes it has had."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.seen: set[psutil.Process] = set()

    async def until(self, word: str) -> str:
        """Wait for a line on stderr with this word in it."""
        assert self.process.stderr is not None
        async with asyncio.timeout(90):
            while line := (await self.process.stderr.readline()).decode():
                self.lines.append(line.rstrip())
                self._look()
                if word in line:
                    return line
        raise AssertionError("\n".join(self.lines))

    def _look(self) -> None:
        self.seen.update(psutil.Process(self.process.pid).children(recursive=True))

    @property
    def prefix(self) -> str:
        found = re.search(r"under the prefix (\S+)\.$", "\n".join(self.lines), re.MULTILINE)
        assert found is not None
        return found[1]

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    async def ended(self) -> tuple[int, str]:
        """Its exit code, and all of stdout."""
        async with asyncio.timeout(90):
            out, err = await self.process.communicate()
        self.lines += err.decode().splitlines()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode()


@pytest.fixture
def demo(at: Callable[[str], Cli], tmp_path: Path) -> Callable[[], AbstractAsyncContextManager[Demo]]:
    """Starts a demo; whatever a test does to it, nothing of it may be left at the end."""

    @asynccontextmanager
    async def started() -> AsyncIterator[Demo]:
        cli = at("demo-test")
        cli.environment["TMPDIR"] = str(tmp_path)
        demo = Demo(await cli.start("demo", "--json", anew=True))
        try:
            yield demo
        finally:
            if demo.process.returncode is None:
                demo.process.kill()
                await demo.process.communicate()
        assert demo.seen, "it should have started processes"
        _, alive = psutil.wait_procs(demo.seen, timeout=15)
        assert not alive
        assert not list(tmp_path.glob("mcp-sessions-demo-*"))
        verified = await cli("topology", "verify", "--prefix", demo.prefix, "--json")
        assert [finding for finding in verified.json["findings"] if finding["state"] != "missing"] == []

    return started


async def test_the_demo_runs_to_its_summary(demo, at: Callable[[str], Cli]):
    assert (await at("demo-test")("--version")).code == 0  # the next command starts at once, while the demo is there
    async with demo() as running:
        await running.until("created")
        seen_from_elsewhere = await at(running.prefix)("sessions", "list", "--json")
        code, out = await running.ended()
        assert code == 0, running.lines
    summary = json.loads(out)
    assert summary["calls"] == summary["platforms"] == len(PARTS)
    assert summary["sessions_opened"] == len(PARTS)
    assert (summary["sessions_closed"], summary["sessions_expired"]) == (len(PARTS) - 1, 1)
    assert summary["tool_calls"] == sum(len(part.todos) + 1 for part in PARTS)
    over_http = [part for part in PARTS if part.over_http]
    assert summary["calls_over_http"] == len(over_http) == 4
    assert summary["webhooks"] == 2 * len(over_http)
    assert summary["swaig_calls"] == sum(len(part.todos) + 1 for part in over_http)
    assert 0 < summary["first_session"] <= summary["slowest_session"] < summary["took"] < 45
    assert 0 < summary["median_tool_call"] <= summary["slowest_tool_call"]
    told = "\n".join(running.lines)
    for call_id in seen_from_elsewhere.json["sessions"]:
        assert len(re.findall(rf"\b(?:closed|expired) +{re.escape(call_id)}\b", told)) == 1
    for part in PARTS:
        assert "; ".join(part.todos) in told, "each call finds its own todos, and only those"


async def test_ctrl_c_ends_it_and_everything_it_started(demo):
    async with demo() as running:
        await running.until("created")
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGINT)  # somebody is impatient
        code, out = await running.ended()
    assert (code, out) == (130, "")
    assert "Traceback" not in "\n".join(running.lines)


async def test_a_worker_that_dies_makes_it_fail_with_a_sentence(demo):
    async with demo() as running:
        await running.until("created")
        os.kill(running.workers[0].pid, signal.SIGKILL)
        code, out = await running.ended()
    assert code == 1
    error = json.loads(out)["error"]
    assert error["code"] == "DEMO_FAILED"
    assert re.match(r"worker demo-\d ended with SIGKILL; its last words:\n", error["message"])


async def test_what_a_dead_worker_leaves_unanswered_is_not_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    leaves = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"

    async def start(_: stage.Place, worker_id: str) -> stage.DemoWorker:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", leaves), stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        (tmp_path / worker_id).write_text("the end\n")
        return stage.DemoWorker(worker_id, process, tmp_path / worker_id)

    monkeypatch.setattr(stage, "_start", start)

    async def fail(*, killed: bool) -> None:
        async with stage.workers_at(stage.Place("", "", tmp_path), Watch()) as (_, second):
            if killed:
                second.process.kill()
            raise DemoFailed("add_todo of the SWAIG call was answered with 424")

    with pytest.raises(DemoFailed, match="worker demo-2 ended with SIGKILL; its last words:\n  the end"):
        await fail(killed=True)
    with pytest.raises(DemoFailed, match="answered with 424"):
        await fail(killed=False)
