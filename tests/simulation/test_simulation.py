"""Some thousands of simulated calls in every run of the tests, and the seeds that have once found something."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]

FOUND = {
    61: "a worker stood still for less than its heartbeats and longer than it may be silent: two owners",
    97: "a call was taken from a worker that came back, and bound to it beside its new owner",
    141: "a report that was not sent was waited for; and a call was given to a worker that had left",
    145: "a dead worker's call was given back to it, beside its new owner",
    251: "a message from before a placement took the call away from where it had been placed",
    457: "a worker that left sent a call's message on before the call itself: two owners",
    282: "a tool call was executed after its answer had said that it was not",
}
"""Seeds that failed, and why."""


def simulate(*options: str) -> str:
    """Run the command; an order of sets that is the same each time needs a process of its own."""
    command = [sys.executable, "-m", "tests.simulation", "--no-shrink", *options]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    return done.stdout


def test_thousands_of_simulated_calls_keep_every_guarantee():
    print(simulate("--seeds", "60", "--first", "1000"))  # noqa: T201


def test_the_same_seed_is_the_same_world():
    simulate("--seeds", "3", "--first", "500", "--twice")


@pytest.mark.parametrize("seed", sorted(FOUND))
def test_what_was_found_once_stays_mended(seed):
    simulate("--seed", str(seed), "--quiet")
