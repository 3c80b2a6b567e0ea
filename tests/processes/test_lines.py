"""Bytes to messages."""

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from consumer.processes.stdio.lines import LineSplitter, LineTooLong, NotJsonRpc, parse
from consumer.processes.stdio.stderr_tail import MAX_BYTES, MAX_LINES, Tail


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
        splitter, started = LineSplitter(cap=1 << 30), time.perf_counter()
        for _ in range(chunks):
            splitter.feed(b"x" * 1024)
        splitter.feed(b"\n")
        return time.perf_counter() - started

    seconds(100)
    small, large = min(seconds(2_000) for _ in range(3)), min(seconds(20_000) for _ in range(3))
    assert large < 40 * small  # quadratic would be a hundred times


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}, JSONRPCResponse),
        ({"jsonrpc": "2.0", "id": "a", "result": {}}, JSONRPCResponse),
        ({"jsonrpc": "2.0", "id": 1, "result": None}, JSONRPCResponse),
        ({"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "m"}}, JSONRPCError),
        ({"jsonrpc": "2.0", "id": None, "error": {"code": -1, "message": "m", "data": 1}}, JSONRPCError),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping"}, JSONRPCRequest),
        ({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}, JSONRPCNotification),
    ],
)
def test_messages_are_told_apart_by_their_shape(line: dict[str, Any], kind: type) -> None:
    assert isinstance(parse(json.dumps(line).encode()), kind)


@pytest.mark.parametrize(
    "line",
    [
        b"Server listening on stdio",
        b"[1, 2]",
        b"{}",
        b'{"jsonrpc": "1.0", "id": 1, "result": {}}',
        b'{"jsonrpc": "2.0", "id": true, "result": {}}',
        b'{"jsonrpc": "2.0", "id": 1.5, "result": {}}',
        b'{"jsonrpc": "2.0", "id": 1, "result": [1]}',
        b'{"jsonrpc": "2.0", "id": 1, "error": "no"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "m", "params": [1]}',
        b'{"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": "half"}}',
        b'{"jsonrpc": "2.0", "id": 1',
        b'{"a":' * 100_000,
        b"\xff\xfe\x00",
        b"",
    ],
)
def test_nonsense_is_called_nonsense(line: bytes) -> None:
    with pytest.raises(NotJsonRpc):
        parse(line)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_do_more_than_that(line: bytes) -> None:
    with contextlib.suppress(NotJsonRpc):
        parse(line)


def test_notifications_that_nobody_hears_cost_nothing() -> None:
    assert parse(b'{"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}}') is None


def test_what_is_no_utf8_is_replaced() -> None:
    found = parse(b'{"jsonrpc": "2.0", "id": 1, "result": {"text": "a\xffz", "half": "\\ud800"}}')
    assert isinstance(found, JSONRPCResponse)
    assert found.result == {"text": "a\ufffdz", "half": "?"}


def test_the_tail_keeps_the_end() -> None:
    tail = Tail()
    for number in range(100_000):
        tail.feed(f"line {number}\n".encode())
    lines = tail.text().splitlines()
    assert len(lines) == MAX_LINES
    assert lines[-1] == tail.last_line() == "line 99999"
    tail.feed(b"\xff" * 10 * MAX_BYTES)
    assert len(tail.text().encode("utf-8", "replace")) <= 3 * MAX_BYTES
    tail.note("it was too loud")
    assert tail.last_line() == "mcp-sessions: it was too loud"
