"""Some thousands of simulated calls in every run of the tests, and the seeds that have once found something.

Importing costs more than most worlds, so what belongs together is lived by one run. It says which failed.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.simulation.findings import HARMLESS, WHERE
from tests.simulation.mutating import MUTATIONS
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
    100266: "a recipe that was sent twice under one number passed for one that comes back, and its end was told twice",
    101609: "the same, where the session ended because another worker owned the call",
    101700: "a recipe that was handed over came back, and passed for the one that a placer had told lost",
    101736: "an end was told when a broker gave its recipe out after three minutes, behind the next life's beginning",
    101832: "a worker that was cut off told late of a session that had died meanwhile",
    101924: "a worker that left deleted its inbox while a start in it waited for the message that was placed",
    101982: "a connection that RabbitMQ had not given up got a recipe, and its end was told twice",
    100109: "a worker that left before it had come left its inbox, which expires",
    300125: "a command that RabbitMQ held back for three minutes opened a session of a call that had ended",
    801013: "a recipe that counted as RabbitMQ's was acknowledged over the link that was just lost, and waited for",
    100156: "a report that was sent before the worker's queue was bound never came back, and its ends waited for it",
    400042: "a worker that counted as dead was given its call, and left while it waited for its own recipe",
    801536: "a recipe that came back from an inbox passed for one that nobody is bound for, and was placed twice",
    840059: "a session whose server had died at a worker that was cut off was told lost, and not restored",
    840100: "an alarm held an end back that a killed worker had sent, and a placer told it as well",
    800128: "a placer told ends and lost its link, and the worker that came back told them as well",
    2000461: "two owners checked at once whose a call was, answered each other, and both gave it up",
    2000809: "a placer died behind the acknowledgement of a recipe before anybody heard that it was rejected",
    1001663: "an alarm held an end back that a worker had sent before its link was cut, and a placer told it as well",
    4002270: "a leaving worker released an ended call, whose hand-over had failed, over a link that was lost",
    4002340: "a tool call opened a session of a call that had ended while it waited for its turn",
}
"""The same in worlds of fifty calls."""

FOUND_IN_THE_SWARM = {
    7177: "a worker that could not publish lost its call unnoticed, and answered a tool call beside the next owner",
}
"""The same in worlds of thirty calls of the whole swarm, each of one of its scripts."""

FOUND_WHERE_ENDS_BREAK = {
    7000: "the simulation lost for good what a worker sent, because another one was killed at that moment",
    7011: "a question that was asked over a lost link was answered before the call was taken away, and believed",
    7009: "a placer believed a worker that had returned what came ahead of the message that was placed",
}
"""The same in worlds of thirty calls of that swarm."""

FOUND_WHERE_PLACERS_CHANGE = {
    7006: "a worker that left cut off told of what it opened, and took the ends back at a failed reconnect",
    7016: "what ended before it was told of had the next life told of ahead of the end of the life before",
    7028: "a recipe that a placer had placed came to it again, and went back to its worker, beside the new owner",
    7146: "a link was lost while a worker that left opened a channel: it was cancelled, and ended without its ends",
    7151: "the new owner told of lives of a worker that had left, and they counted as the last ones of their sessions",
    7197: "a worker that left released a call whose ends were on their way, and did not take them back with its link",
}
"""The same in worlds of thirty calls of that swarm."""

FOUND_WHERE_WORKERS_LEAVE = {
    7037: "a worker that left told an end when it had no time left to acknowledge its recipe",
    7165: "the checker did not know that a life of a worker that left cut off is told when there is a placer again",
}
"""The same in worlds of thirty calls of that swarm."""

FOUND_WHERE_WORKERS_ARE_AWAY_TWICE = {
    7120: "a worker kept a session that it had opened cut off: its next owner had closed its own one by command",
    7133: "two owners kept a call for good: the higher had answered the lower over a link that this one had lost",
    7135: "one copy of a recipe was told lost, and the other went back to its worker, which told the ends again",
}
"""The same in worlds of thirty calls of that swarm."""

QUICKLY_FOUND: tuple[str, ...] = (
    "an idempotency key is not remembered",
    "a recipe is acknowledged when it comes",
    "a newcomer hears no ends",
    "a released call's binding stays",
    "a worker says that it has told of one recipe more",
    "an end is acknowledged before its owner has answered",
    "created is told before the recipe is written",
    "what is lost is not told as created",
    "who was away does not ask for its calls",
)
"""Mistakes that few worlds are enough for. An order that was a hole once has a test of its own."""


Simulate: TypeAlias = Callable[..., str]


@pytest.fixture(scope="module")
def simulate() -> Iterator[Simulate]:
    """Return a function that runs the command, each time in a process of its own, and returns what it prints.

    An order of sets that is the same each time needs another interpreter than ours.
    """
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.simulation.serving"],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def run(*options: str) -> str:
        assert server.stdin
        assert server.stdout
        print(json.dumps(["--no-shrink", *options]), file=server.stdin, flush=True)
        code, told = json.loads(server.stdout.readline())
        assert code == 0, told[-20_000:]
        return str(told)

    with server:
        try:
            yield run
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # with a run that took too long


def test_thousands_of_simulated_calls_keep_every_guarantee(simulate: Simulate):
    print(simulate("--seeds", "20", "--first", "1000"))  # noqa: T201


def test_the_same_seed_is_the_same_world(simulate: Simulate):
    simulate("--seeds", "3", "--first", "500", "--calls", "50", "--twice")


def test_a_run_in_parts_and_processes_comes_to_the_same_sums(simulate: Simulate, tmp_path: Path):
    def sums(name: str) -> dict[str, int]:
        summary = json.loads((tmp_path / name).read_text())
        assert summary["next"] == 11
        (of_commit,) = summary["commits"].values()
        assert of_commit["failed"] == []
        return {what: count for what, count in of_commit["counts"].items() if what != "cpu ms"}

    few = ("--first", "1", "--calls", "3")
    simulate(*few, "--seeds", "6", "--jobs", "2", "--summary", str(tmp_path / "parts"))
    told = simulate(*few, "--seeds", "10", "--jobs", "2", "--summary", str(tmp_path / "parts"))
    assert "4 worlds" in told, told
    simulate(*few, "--seeds", "10", "--summary", str(tmp_path / "whole"))
    assert sums("parts") == sums("whole")
    assert sums("whole")["worlds"] == 10
    assert sums("whole")["fault kill"] > 0


def test_what_was_found_once_stays_mended(simulate: Simulate):
    simulate("--seed", *map(str, FOUND), "--quiet")


def test_what_was_found_once_among_fifty_calls_stays_mended(simulate: Simulate):
    simulate("--seed", *map(str, FOUND_AMONG_FIFTY), "--calls", "50", "--quiet")


def test_what_was_found_once_in_the_swarm_stays_mended(simulate: Simulate):
    simulate("--seed", *map(str, FOUND_IN_THE_SWARM), "--swarm", "", "--calls", "30", "--quiet")


def test_what_was_found_once_where_ends_break_stays_mended(simulate: Simulate):
    simulate("--seed", *map(str, FOUND_WHERE_ENDS_BREAK), "--swarm", "end breaks", "--calls", "30", "--quiet")


def test_what_was_found_once_where_placers_change_stays_mended(simulate: Simulate):
    simulate("--seed", *map(str, FOUND_WHERE_PLACERS_CHANGE), "--swarm", "placers change", "--calls", "30", "--quiet")


def test_what_was_found_once_where_workers_leave_stays_mended(simulate: Simulate):
    simulate("--seed", *map(str, FOUND_WHERE_WORKERS_LEAVE), "--swarm", "leaves", "--calls", "30", "--quiet")


def test_what_was_found_once_where_workers_are_away_twice_stays_mended(simulate: Simulate):
    among = "--swarm", "away twice", "--calls", "30", "--quiet"
    simulate("--seed", *map(str, FOUND_WHERE_WORKERS_ARE_AWAY_TWICE), *among)
    assert " overlaps of a worker that was cut off" not in simulate("--seed", "7120", *among)


def test_mistakes_in_the_protocol_are_found(simulate: Simulate):
    simulate("--seeds", "60", "--calls", "8", "--mutations", *QUICKLY_FOUND)


def test_mistakes_that_another_rule_makes_up_for_are_found_without_that_rule(simulate: Simulate):
    simulate("--seeds", "4", "--mutations", *HARMLESS)


def test_each_mistake_is_found_somewhere_or_takes_away_what_makes_up_for_another():
    assert MUTATIONS.keys() == WHERE.keys() | {made_up_for.without for made_up_for in HARMLESS.values()}


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(WHERE.keys() - {*QUICKLY_FOUND, *MENDED.values(), *HARMLESS}))
def test_each_mistake_in_the_protocol_is_found(simulate: Simulate, name: str):
    simulate("--seeds", "500", "--calls", "8", "--mutations", name)


def test_orders_that_were_holes_once_are_holes_only_with_their_mistakes(simulate: Simulate):
    simulate("--order", *MENDED, "--seeds", "4")
    simulate("--seeds", "4", "--mutations", *MENDED.values())


def test_the_last_worker_that_waits_for_its_calls_answers_and_tells_of_ends_over_a_new_link(simulate: Simulate):
    asked, ended = (
        "the last worker has a new link while it waits for its calls to end",
        "a session of the last worker ends while its recipe is away",
    )
    told = simulate("--order", asked, ended, "--seeds", "4")
    assert re.search(f"^{asked}: .* requests answered 320,.* tool calls executed 320,", told, re.MULTILINE), told
    assert re.search(f"^{ended}: .* expired 4,", told, re.MULTILINE), told


def test_an_end_that_is_heard_of_late_closes_no_session_that_was_requested_after_it(simulate: Simulate):
    told = simulate("--order", "an end before an explicit request is heard of late", "--seeds", "4")
    assert re.search(" tool calls executed 4,", told), told


def test_a_request_that_may_open_a_session_is_not_placed_beside_an_owner_without_a_link(simulate: Simulate):
    told = simulate("--order", "asked while its owner has no link", "--seeds", "4")
    assert re.search(" created 24,.* tool calls executed 24,", told), told


def test_a_request_that_comes_again_opens_nothing_and_what_has_expired_is_not_handed_over(simulate: Simulate):
    told = simulate(
        "--order",
        "a request whose acknowledgement is lost",
        "leaves when one of two sessions has expired",
        "--seeds",
        "4",
    )
    assert re.search("^a request .* created 4,", told, re.MULTILINE), told
    assert re.search("^leaves when .* created 12,", told, re.MULTILINE), told


def test_in_two_orders_a_call_comes_back_that_had_ended_when_the_only_worker_that_knew_is_gone(simulate: Simulate):
    told = simulate("--order", "ended while its recipe was away", "closed by command")
    assert re.search("^ended while its recipe was away: .* created 2,.* lost 1,", told, re.MULTILINE), told
    assert re.search("^closed by command: .* created 2,.* lost 1,", told, re.MULTILINE), told
