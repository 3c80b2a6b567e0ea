"""Living many worlds, in one process or in several, and keeping the sums of what came of them."""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.simulation.run import Outcome

TOGETHER = 20
"""How many worlds are a batch: what a process lives at a time, and what a summary has whole or not at all."""


@dataclass
class Batch:
    """What came of some worlds, whose seeds follow each other."""

    seeds: Sequence[int]
    counts: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0
    failed: list[Outcome] = field(default_factory=list)


def batches(one: Callable[[int], Outcome], seeds: Sequence[int], *, jobs: int, keep_going: bool) -> Iterator[Batch]:
    """Live the worlds of ``seeds`` by ``one``, in as many processes as ``jobs`` says; what came of them is in order.

    The processes are forked: what is patched here is patched there. Unless we ``keep_going``, a batch ends with the
    first world that fails.
    """

    def live(seeds: Sequence[int]) -> Batch:
        batch = Batch(seeds)
        began = time.process_time()
        for seed in seeds:
            outcome = one(seed)
            batch.counts += outcome.counts
            if outcome.problems:
                batch.failed.append(outcome)
                if not keep_going:
                    break
        batch.cpu = time.process_time() - began
        return batch

    pieces = [seeds[at : at + TOGETHER] for at in range(0, len(seeds), TOGETHER)]
    if jobs == 1 or len(pieces) == 1:
        yield from map(live, pieces)
        return
    with get_context("fork").Pool(min(jobs, len(pieces)), _have, (live,)) as pool:
        yield from pool.imap(_live, pieces)


_lives: list[Callable[[Sequence[int]], Batch]] = []


def _have(live: Callable[[Sequence[int]], Batch]) -> None:
    _lives[:] = [live]


def _live(seeds: Sequence[int]) -> Batch:
    return _lives[0](seeds)


class Summary:
    """The sums of a run in a file, by commit, so that a long run can be done in parts: it goes on where it stopped."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._kept: dict[str, Any] = (
            json.loads(path.read_text()) if path is not None and path.exists() else {"next": 0, "commits": {}}
        )
        self._commit = _commit() if path is not None else ""

    def left(self, seeds: Sequence[int]) -> Sequence[int]:
        """Those of the seeds that were not lived yet."""
        return [seed for seed in seeds if seed >= self._kept["next"]]

    def add(self, batch: Batch) -> None:
        """Add what came of a batch, and write it all."""
        if self._path is None:
            return
        sums = self._kept["commits"].setdefault(self._commit, {"cpu s": 0.0, "failed": [], "counts": {}})
        sums["cpu s"] = round(sums["cpu s"] + batch.cpu, 2)
        sums["failed"] += [outcome.plan.seed for outcome in batch.failed]
        sums["counts"] = dict(sorted((Counter(sums["counts"]) + batch.counts).items()))
        self._kept["next"] = batch.seeds[-1] + 1
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        beside.write_text(json.dumps(self._kept, indent=1) + "\n")
        beside.replace(self._path)


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"
