"""A cleaner in a folder that others may write to: it changes nothing outside its own folders, and it always ends."""

import asyncio
import contextlib
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.processes.launch import session_root
from consumer.processes.launch.minimal_environment import MARKER
from consumer.processes.launch.removal import remove_tree
from consumer.processes.launch.session_root import NAME, OWNER, SessionRoot, sweep
from tests.harness import Cluster, config

from .whom import NOBODY

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="left out: another user's files are made as root")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A tree that has nothing to do with us; it is as it was at the end."""
    tree = tmp_path / "outside"
    (tree / "deep").mkdir(parents=True)
    (tree / "file").write_text("kept")
    (tree / "deep" / "file").write_text("kept")
    (tree / "deep").chmod(0o755)
    tree.chmod(0o755)
    before = seen(tree)
    yield tree
    assert seen(tree) == before


def seen(tree: Path) -> list[tuple[str, int, int, int]]:
    paths = sorted([tree, *tree.rglob("*")])
    return [(str(path), one.st_mode, one.st_uid, one.st_ino) for path in paths for one in [path.lstat()]]


def swapping(folder: Path, name: str, outside: Path, stop: threading.Event) -> None:
    """What a server in its last moment, or a neighbour, does: a directory is closed, and becomes a link and back."""
    path = folder / name
    while not stop.is_set():
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            path.mkdir()  # so it is no link now
            (path / "c").mkdir()
            (path / "file").touch()
            path.chmod(random.choice((0o000, 0o500, 0o700)))
            path.rename(folder / f"{name}-was")
        with contextlib.suppress(OSError):
            path.symlink_to(outside, target_is_directory=True)
        with contextlib.suppress(OSError):
            path.unlink()


@pytest.mark.parametrize("times", [150, pytest.param(1_000, marks=pytest.mark.long)])
def test_a_race_that_is_run_often_changes_nothing_outside(tmp_path: Path, outside: Path, times: int) -> None:
    folder = tmp_path / "folder"
    stop = threading.Event()
    racing = [threading.Thread(target=swapping, args=(folder, name, outside, stop)) for name in "abc"]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for one in racing:
        one.start()
    before = seen(outside)
    try:
        for _ in range(times):
            remove_tree(folder, timeout=0.01)
            assert seen(outside) == before
    finally:
        stop.set()
        for one in racing:
            one.join()
        sys.setswitchinterval(interval)
    assert remove_tree(folder)


def test_a_folder_that_is_a_link_by_now_is_left(tmp_path: Path, outside: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(outside, target_is_directory=True)
    assert not remove_tree(link)
    assert link.is_symlink()


def test_deep_trees_closed_folders_and_odd_files_go(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    at = os.open(folder, os.O_RDONLY)
    for _ in range(3_000):
        os.mkdir("d", dir_fd=at)
        deeper = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(at)
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(folder / "socket"))
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "closed").chmod(0)
    (folder / "dangling").symlink_to("/nowhere")
    assert remove_tree(folder, timeout=20)
    assert not folder.exists()


def test_who_goes_on_writing_costs_the_timeout_and_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
                (folder / f"{number}").mkdir()

    writing = threading.Thread(target=write)
    writing.start()
    began = time.monotonic()
    remove_tree(folder, timeout=0.3)
    took = time.monotonic() - began
    stop.set()
    writing.join()
    assert took < 5
    assert remove_tree(folder, timeout=60)


def odd_folders(parent: Path, outside: Path) -> None:
    """Everything that has been thought of to mislead a sweep, under the names of base folders."""
    for kind in ("fifo", "link", "folder", "hard", "open", "socket", "endless"):
        (parent / f"{NAME}{kind}").mkdir()
    os.mkfifo(parent / f"{NAME}fifo" / OWNER)
    (parent / f"{NAME}link" / OWNER).symlink_to(outside / "file")
    (parent / f"{NAME}folder" / OWNER).mkdir()
    os.link(outside / "file", parent / f"{NAME}hard" / OWNER)
    (parent / f"{NAME}open" / OWNER).write_text(f'{{"host": "{socket.gethostname()}"}}')
    (parent / f"{NAME}open" / OWNER).chmod(0o666)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(parent / f"{NAME}socket" / OWNER))
    (parent / f"{NAME}endless" / OWNER).symlink_to(f"{NAME}endless" / Path(OWNER))
    (parent / f"{NAME}to-outside").symlink_to(outside, target_is_directory=True)
    (parent / f"{NAME}file").write_text("x")
    os.mkfifo(parent / f"{NAME}pipe")


def test_a_sweep_believes_no_link_no_fifo_and_no_file_that_others_may_write(tmp_path: Path, outside: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    os.link(outside / "file", outside / "second")
    (outside / "second").unlink()
    odd_folders(parent, outside)
    before = seen(parent)
    began = time.monotonic()
    sweep(parent)
    assert time.monotonic() - began < 5
    assert seen(parent) == before


@as_root
def test_a_folder_that_another_user_has_made_is_left(tmp_path: Path) -> None:
    foreign = tmp_path / f"{NAME}foreign"
    foreign.mkdir()
    (foreign / OWNER).write_text(f'{{"host": "{socket.gethostname()}"}}')
    os.chown(foreign, NOBODY, NOBODY)
    sweep(tmp_path)
    assert (foreign / OWNER).exists()
    os.chown(foreign, 0, 0)
    os.chown(foreign / OWNER, NOBODY, NOBODY)
    sweep(tmp_path)
    assert (foreign / OWNER).exists()


async def test_who_copies_a_living_workers_mark_gets_nobody_killed(tmp_path: Path) -> None:
    living = SessionRoot(tmp_path)
    copy = tmp_path / f"{NAME}copy"
    copy.mkdir()
    (copy / OWNER).write_bytes((living.path / OWNER).read_bytes())
    (copy / OWNER).chmod(0o600)
    server = await asyncio.create_subprocess_exec("sleep", "1000", env={MARKER: living.mark})
    try:
        await asyncio.to_thread(sweep, tmp_path)
        assert server.returncode is None
        assert not copy.exists()
    finally:
        server.kill()
        await server.wait()
        living.forget()
    sweep(tmp_path)
    assert not living.path.exists()


async def test_a_worker_in_a_folder_full_of_traps_starts_serves_and_exits(
    mcp: Cluster, tmp_path: Path, outside: Path
) -> None:
    """A race against its own folder of sessions goes on meanwhile, by whoever may write beside it."""
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(0o1777)
    odd_folders(parent, outside)
    before = {path: path.lstat().st_mode for path in parent.iterdir()}
    worker = await mcp.start(config(session={"sandbox_dir": str(parent)}))
    await mcp.client.create("c-1", "echo")
    (base,) = set(parent.glob(f"{NAME}*")) - before.keys()
    assert base.stat().st_mode & 0o777 == 0o311
    began = time.monotonic()
    assert await worker.terminate() == 0
    assert time.monotonic() - began < 25
    assert {path: path.lstat().st_mode for path in parent.iterdir()} == before


def test_the_lock_is_part_of_no_race(tmp_path: Path) -> None:
    """A base folder never stands under its name without its lock."""
    base = SessionRoot(tmp_path)
    with session_root._taken_over(base.path) as owner:
        assert owner is None
    base.forget()
    with session_root._taken_over(base.path) as owner:
        assert owner is not None
    assert remove_tree(base.path)
