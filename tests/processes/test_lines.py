"""Bytes to lines, and the last of them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.processes.stdio.line_splitter import LineSplitter, LineTooLong
from consumer.processes.stdio.stderr_tail import MAX_BYTES, MAX_LINES, StderrTail


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 20)))
def test_lines_are_the_same_however_the_bytes_were_cut(lines: list[bytes], cuts: list[int]) -> None:
    lines = [line.replace(b"\n", b" ") for line in lines]
    data = b"".join(line + b"\n" for line in lines)
    splitter, found = LineSplitter(), []
    for cut in cuts:
        found += splitter.feed(data[:cut])
        data = data[cut:]
    assert found + splitter.feed(data) == lines


def test_a_line_over_the_cap_is_refused_before_it_has_ended() -> None:
    splitter = LineSplitter(cap=10)
    assert splitter.feed(b"0123456789\n01234") == [b"0123456789"]
    with pytest.raises(LineTooLong):
        splitter.feed(b"567890")


def test_a_huge_line_costs_linear_time() -> None:
    def seconds(chunks: int) -> float:
        splitter, started = LineSplitter(cap=1 << 30), time.thread_time()  # what others run meanwhile is not its cost
        for _ in range(chunks):
            splitter.feed(b"x" * 1024)
        splitter.feed(b"\n")
        return time.thread_time() - started

    seconds(100)
    # Both are larger than what the processor keeps near.
    small, large = min(seconds(5_000) for _ in range(3)), min(seconds(50_000) for _ in range(3))
    assert large < 60 * small  # quadratic would be a hundred times


def test_the_tail_keeps_the_end() -> None:
    tail = StderrTail()
    for number in range(100_000):
        tail.feed(f"line {number}\n".encode())
    lines = tail.text().splitlines()
    assert len(lines) == MAX_LINES
    assert lines[-1] == tail.last_line() == "line 99999"
    tail.feed(b"\xff" * 10 * MAX_BYTES)
    assert len(tail.text().encode("utf-8", "replace")) <= 3 * MAX_BYTES
    tail.note("it was too loud")
    assert tail.last_line() == "mcp-sessions: it was too loud"


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("", ""),
        ("starting\n\n  \n", "starting"),
        ("Traceback (most recent call last):\n  File ...\nKeyError: 'x'\n", "KeyError: 'x'"),
        (
            "a.js:1\n    throw new TypeError('no')\n    ^\n\nTypeError: no\n    at a.js:1\n\nNode.js v20.20.2\n",
            "TypeError: no",
        ),
        (
            "Error: the first\nError [ERR_X]: the last\n    at x\n  [cause]: Error: why\n}\n\nNode.js v22.1.0",
            "Error [ERR_X]: the last",
        ),
        ("Uncaught:\n'just words'\n\nNode.js v20.20.2\n", "Node.js v20.20.2"),
        (
            (
                "Resolved 3 packages\nerror: Failed to fetch: `https://pypi.example/simple/x/`\n"
                "  Caused by: Could not connect\n  Caused by: refused\nhint: try `--offline`,\n      or wait\n"
            ),
            "error: Failed to fetch: `https://pypi.example/simple/x/`",
        ),
        (
            "error: one\nerror[E0425]: two\n  --> a.rs:1\n\nFor more information about this error, try x.",
            "error[E0425]: two",
        ),
        ("ReferenceError: x\n    at a.js:1\n", "ReferenceError: x"),
        ("error: one\nhint: a hint\nstarting again\n", "starting again"),
        ("starting\nhint: a hint\n", "hint: a hint"),
        ("hint: a hint\n", "hint: a hint"),
        ("Error: no\nNode.js v20 or newer is needed\n", "Node.js v20 or newer is needed"),
    ],
)
def test_the_line_that_is_told_says_why(written: str, line: str) -> None:
    tail = StderrTail()
    tail.feed(written.encode())
    assert tail.last_line() == line
