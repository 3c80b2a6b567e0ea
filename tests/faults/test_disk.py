"""The disk of the sandbox folder is full: starts fail and say so, everything that lives goes on."""

import asyncio
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from schemas.errors import StartFailed
from tests.faults.checker import check
from tests.faults.stage import Stage, faulty

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def small_disk(scene: Stage) -> Iterator[Path]:
    """A file system of its own, of 256 KiB and 64 files, where the stage's workers have their sandboxes."""
    sandbox = scene.folder / "sandbox"
    sandbox.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=64,mode=700", "tmpfs", str(sandbox)]
    if os.geteuid() != 0 or subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield sandbox
    subprocess.run(["umount", "--lazy", str(sandbox)], check=True)


def fill(disk: Path) -> Path:
    """Take all the space and every name that is left."""
    filler = disk / "filler"
    filler.mkdir()
    with suppress(OSError), (filler / "space").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with suppress(OSError):
        for number in itertools.count():
            (filler / f"name-{number}").touch()
    return filler


async def test_a_full_disk_fails_starts_with_its_reason_and_costs_no_live_session(scene: Stage, small_disk: Path):
    worker = await scene.start(faulty())
    living = [f"live-{number}" for number in range(5)]
    await scene.start_calls(living)
    filler = fill(small_disk)
    # No folder can be made any more, whoever asks.
    with pytest.raises(StartFailed, match="No space left"):
        await scene.client.create("command", "echo")
    late = [f"late-{number}" for number in range(5)]
    await asyncio.gather(*(scene.publish(call, "started") for call in late))
    await scene.until(lambda: {e.data["call_id"] for e in scene.of("rejected")} == {"command", *late})
    assert {e.data["code"] for e in scene.of("rejected")} == {"START_FAILED"}
    assert set((await scene.counts(living)).values()) == {1}
    # A worker whose first session this would have been fares no worse.
    await scene.start(faulty())
    await scene.end_calls(living[:2])
    await scene.until(lambda: {e.subject for e in scene.of("closed")} == set(living[:2]))
    shutil.rmtree(filler)
    again = [f"again-{number}" for number in range(5)]
    await scene.start_calls(again)
    assert set((await scene.counts(living[2:])).values()) == {2}
    assert worker in scene.alive
    await scene.end_calls([*living, *again, *late])
    await check(scene, "full disk")
