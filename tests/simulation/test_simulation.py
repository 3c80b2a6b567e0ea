"""Some thousands of simulated calls in every run of the tests, and the seeds that have once found something."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutations import WHERE
from tests.simulation.orders import MENDED

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]

FOUND = {
    20010: "a worker that left in an alarm took the recipes of its calls with it, and their ends",
    1: "a start that was sent behind the end came when its tombstone was over, and opened the call",
    6: "a dead worker's late start was placed by a new placer beside the call's owner",
    10018: "the same, while a worker left",
    10027: "the same, with two sessions",
    10026: "a worker that was cut off told of a session that was another worker's by then, and gave it up",
}
"""Seeds that failed, and why. What had been found before is among the mutations, which do not depend on the order."""

FOUND_AMONG_FIFTY = {
    100109: "a worker that left before it had come left its inbox, which expires",
    100156: "a report that was sent before the worker's queue was bound never came back, and its ends waited for it",
}
"""The same in worlds of fifty calls."""

QUICKLY_FOUND: tuple[str, ...] = (
    "an idempotency key is not remembered",
    "a recipe is acknowledged when it comes",
    "a released call's binding stays",
    "an end is acknowledged before its owner has answered",
    "created is told before the recipe is written",
    "what is lost is not told as created",
    "who was away does not ask for its calls",
)
"""Mistakes that few worlds are enough for. An order that was a hole once has a test of its own."""


def simulate(*options: str) -> str:
    """Run the command; an order of sets that is the same each time needs a process of its own."""
    command = [sys.executable, "-m", "tests.simulation", "--no-shrink", *options]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    return done.stdout


def test_thousands_of_simulated_calls_keep_every_guarantee():
    print(simulate("--seeds", "30", "--first", "1000"))  # noqa: T201


def test_the_same_seed_is_the_same_world():
    simulate("--seeds", "3", "--first", "500", "--twice")


def test_a_run_in_parts_and_processes_comes_to_the_same_sums(tmp_path):
    def sums(name: str) -> dict[str, int]:
        summary = json.loads((tmp_path / name).read_text())
        assert summary["next"] == 41
        (of_commit,) = summary["commits"].values()
        assert of_commit["failed"] == []
        return {what: count for what, count in of_commit["counts"].items() if what != "cpu ms"}

    few = ("--first", "1", "--calls", "3")
    simulate(*few, "--seeds", "21", "--jobs", "2", "--summary", str(tmp_path / "parts"))
    told = simulate(*few, "--seeds", "40", "--jobs", "2", "--summary", str(tmp_path / "parts"))
    assert "19 worlds" in told, told
    simulate(*few, "--seeds", "40", "--summary", str(tmp_path / "whole"))
    assert sums("parts") == sums("whole")
    assert sums("whole")["worlds"] == 40
    assert sums("whole")["fault kill"] > 0


@pytest.mark.parametrize("seed", sorted(FOUND))
def test_what_was_found_once_stays_mended(seed):
    simulate("--seed", str(seed), "--quiet")


@pytest.mark.parametrize("seed", sorted(FOUND_AMONG_FIFTY))
def test_what_was_found_once_among_fifty_calls_stays_mended(seed):
    simulate("--seed", str(seed), "--calls", "50", "--quiet")


@pytest.mark.parametrize("name", QUICKLY_FOUND)
def test_a_mistake_in_the_protocol_is_found(name):
    simulate("--seeds", "60", "--calls", "8", "--mutations", name)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(WHERE.keys() - {*QUICKLY_FOUND, *MENDED.values()}))
def test_each_mistake_in_the_protocol_is_found(name):
    simulate("--seeds", "500", "--calls", "8", "--mutations", name)


@pytest.mark.parametrize("name", MENDED)
def test_an_order_that_was_a_hole_once_is_one_only_with_its_mistake(name):
    simulate("--order", name, "--seeds", "4")
    simulate("--order", name, "--seeds", "4", "--mutations", MENDED[name])


def test_a_call_whose_end_only_a_dead_owner_knew_is_restored_in_one_order():
    told = simulate("--order", "ended while its recipe was away")
    assert "created 2," in told, told
    assert "lost 1," in told, told


def test_a_session_that_was_closed_by_command_comes_back_in_one_order():
    told = simulate("--order", "closed by command")
    assert "created 2," in told, told
    assert "lost 1," in told, told
