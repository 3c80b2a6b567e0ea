"""Real processes on both event loops; nothing may be left behind by any test of this folder."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
import uvloop

from consumer.processes.launch.launcher import LocalLauncher
from tests.leftovers import no_process_is_left

from .helpers import Start, Starts, until


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What has to do with processes and pipes runs on plain asyncio as well as on uvloop, which the worker uses."""
    if item.path.stem == "test_worker_ends":  # what is tested has a loop of its own
        return {"asyncio": asyncio.new_event_loop}
    both = item.path.stem in {"test_calls", "test_end", "test_start", "test_keeper"}
    plain = {"asyncio": asyncio.new_event_loop} if both else {}
    return {**plain, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's temporary folder of this test: no folder of ours may be left in it."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.glob("mcp-sessions-*")), "folders are left"


@pytest.fixture(autouse=True)
async def nothing_is_left(temporary: Path) -> AsyncIterator[None]:
    with no_process_is_left():
        yield
    await until(lambda: not marked(), "processes of a worker are left")


def marked() -> list[psutil.Process]:
    """Processes, whoever's child they are by now, that were started in this test's temporary folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR", "").startswith(f"{tempfile.gettempdir()}/mcp-sessions-"):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
async def launcher() -> AsyncIterator[LocalLauncher]:
    made = LocalLauncher()
    yield made
    await made.close()


@pytest.fixture
async def start(launcher: LocalLauncher) -> AsyncIterator[Start]:
    """Start a client of a server of ``tests/servers``; all are stopped at the end."""
    starts = Starts(launcher)
    yield starts
    await starts.stop()
