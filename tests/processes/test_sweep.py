"""What a killed worker has left is found by its mark and removed by the next one on the same host."""

import asyncio
import os
import signal
from pathlib import Path

import psutil

from consumer.processes.launch import session_root
from tests.harness import ECHO, OPEN, Cluster, config


def folders(sandbox: Path) -> set[Path]:
    return set(sandbox.glob(f"{session_root.NAME}*"))


async def test_folders_and_processes_of_a_worker_that_was_killed_with_its_keeper(mcp: Cluster):
    mcp.anew = True  # the streams of what is killed here stay open in its grandchildren
    sandbox = mcp.folder / "sandbox"
    service = {"command": [*ECHO, "--grandchild"], "sandbox": OPEN}
    configuration = config(services={"echo": service}, session={"sandbox_dir": str(sandbox)})
    victim, living = await mcp.start(configuration), await mcp.start(configuration)
    await asyncio.gather(*(mcp.client.create(f"s-{number}", "echo") for number in range(6)))
    await mcp.until(lambda: len(mcp.of("created")) == 6)
    left = victim.children()
    kept = living.children()
    before = folders(sandbox)
    assert len(before) == 2

    # The container ran out of memory: worker and keeper are gone before either can clear up.
    keepers = [process for process in left if "keeper_child" in " ".join(process.cmdline())]
    assert len(keepers) == 1
    os.kill(victim.process.pid, signal.SIGSTOP)
    keepers[0].kill()
    await victim.kill()
    outlived = [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert outlived, "grandchildren, which the death signal does not reach"
    assert folders(sandbox) == before

    third = await mcp.start(configuration)
    found = await third.logged("sweep.found")
    _, alive = await asyncio.to_thread(psutil.wait_procs, outlived, timeout=10)
    assert alive == []
    await mcp.until(lambda: not Path(found["folder"]).exists())
    # Nothing of a living worker is touched.
    assert all(process.is_running() for process in kept)
    assert before - folders(sandbox) == {Path(found["folder"])}


def test_a_folder_of_another_host_or_of_a_living_worker_is_left_alone(tmp_path: Path, monkeypatch):
    mine = session_root.SessionRoot(tmp_path)
    foreign = session_root.SessionRoot(tmp_path)
    foreign.forget()
    (foreign.path / session_root.OWNER).write_text('{"host": "another.example.com"}')
    unrelated = tmp_path / f"{session_root.NAME}unrelated"
    unrelated.mkdir()
    try:
        session_root.sweep(tmp_path)
        assert folders(tmp_path) == {mine.path, foreign.path, unrelated}
    finally:
        mine.forget()
    session_root.sweep(tmp_path)
    assert folders(tmp_path) == {foreign.path, unrelated}
