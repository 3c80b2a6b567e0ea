"""Bytes to JSON-RPC messages."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from consumer.processes.jsonrpc import MAX_DEPTH, NotJsonRpc, answer_to, parse


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}, JSONRPCResponse),
        ({"jsonrpc": "2.0", "id": "a", "result": {}}, JSONRPCResponse),
        ({"id": 1, "result": {}}, JSONRPCResponse),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "result": {}}, JSONRPCResponse),
        ({"jsonrpc": "2.0", "id": 1, "result": {}, "error": None}, JSONRPCResponse),
        ({"jsonrpc": "2.0", "id": 1, "result": None, "error": {"code": 1, "message": "m"}}, JSONRPCError),
        ({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": []}, JSONRPCNotification),
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
        b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}',
        b'{"jsonrpc": "2.0", "id": true, "method": "ping"}',
        b'{"id": 1, "level": "error", "error": "a log line"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "m", "params": [1]}',
        b'{"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": "half"}}',
        b'{"jsonrpc": "2.0", "method": "m", "id": 1',
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
    assert parse(b'{"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": {"taskId": "1"}}') is None


def test_what_is_no_utf8_is_replaced() -> None:
    found = parse(b'{"jsonrpc": "2.0", "id": 1, "result": {"text": "a\xffz", "half": "\\ud800"}}')
    assert isinstance(found, JSONRPCResponse)
    assert found.result == {"text": "a\ufffdz", "half": "\ufffd"}


def failed(line: bytes) -> JSONRPCError:
    found = parse(line)
    assert isinstance(found, JSONRPCError)
    return found


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (b'"no such customer"', -32603, "no such customer"),
        (b'{"code": "E42", "message": "no such customer"}', -32603, "no such customer"),
        (b'{"code": 4.5, "message": "no such customer"}', -32603, "no such customer"),
        (b'{"code": 4.0, "message": "no such customer"}', 4, "no such customer"),
        (b'{"message": "no such customer"}', -32603, "no such customer"),
        (b'{"code": 4}', 4, '{"code":4}'),
        (b"[1]", -32603, "[1]"),
        (b"true", -32603, "true"),
        (b'""', -32603, '""'),
        (b'"%s"' % (b"x" * 300), -32603, "x" * 300),
    ],
)
def test_an_error_however_it_is_written_is_told_in_the_servers_words(error: bytes, code: int, message: str) -> None:
    found = failed(b'{"jsonrpc": "2.0", "id": 7, "error": %s}' % error)
    assert (found.id, found.error.code, found.error.message) == (7, code, message)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"jsonrpc": "2.0", "id": 7, "result": ["one"]}', '["one"]'),
        (b'{"jsonrpc": "2.0", "id": 7, "result": []}', "not an object: []"),
        (b'{"jsonrpc": "2.0", "id": 7, "result": "one"}', '"one"'),
        (b'{"jsonrpc": "2.0", "id": 7}', "neither"),
        (b'[{"jsonrpc": "2.0", "id": 7, "result": {}}]', "array"),
        (b'{"jsonrpc": "2.0", "id": 7, "result": ' + b'{"a":' * 90_000, "nested too deeply"),
        (
            b'{"result": ' + b'{"a":' * 9_000 + b"1" + b"}" * 9_000 + b', "id": 7, "jsonrpc": "2.0"}',
            "nested too deeply",
        ),
        (b'{"jsonrpc": "2.0", "id": 7, "result": {"n": ' + b"1" * 5_000 + b"}}", "too many digits"),
        (b'{"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "te', "not JSON"),
    ],
)
def test_an_answer_that_cannot_be_used_is_an_error_for_who_asked(line: bytes, words: str) -> None:
    found = failed(line)
    assert found.id == 7
    assert words in found.error.message
    assert len(found.error.message) < 400


@pytest.mark.parametrize(("written", "meant"), [(b"1", 1), (b"1.0", 1), (b'"1"', "1"), (b'"a"', "a")])
def test_an_id_is_the_same_however_it_is_written(written: bytes, meant: object) -> None:
    found = parse(b'{"jsonrpc": "2.0", "id": %s, "result": {}}' % written)
    assert isinstance(found, JSONRPCResponse)
    assert found.id == meant


@pytest.mark.parametrize("written", [b"null", b"1.5", b"true", b"{}", b"[1]"])
def test_an_answer_without_a_usable_id_is_an_error_without_one(written: bytes) -> None:
    assert failed(b'{"jsonrpc": "2.0", "id": %s, "result": {"a": 1}}' % written).id is None


def test_what_an_error_holds_is_never_too_deep_for_the_reply() -> None:
    data = b'{"a":' * (MAX_DEPTH + 20) + b"1" + b"}" * (MAX_DEPTH + 20)
    found = failed(b'{"jsonrpc": "2.0", "id": 7, "error": {"code": 1, "message": "m", "data": %s}}' % data)
    assert isinstance(found.error.data, str)


def test_a_byte_order_mark_is_no_part_of_a_message() -> None:
    assert isinstance(parse(b'\xef\xbb\xbf{"jsonrpc": "2.0", "id": 1, "result": {}}'), JSONRPCResponse)


@given(st.binary(max_size=200))
def test_what_came_for_a_request_always_answers_it(data: bytes) -> None:
    assert answer_to(7, data).id == 7


def test_progress_that_is_no_number_for_us_is_not_told() -> None:
    line = b'{"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": %s, "total": %s}}'
    for progress in (b"NaN", b"1e999", b"9" * 400):
        with pytest.raises(NotJsonRpc):
            parse(line % (progress, b"1"))
        found = parse(line % (b"1", progress))
        assert isinstance(found, JSONRPCNotification)
        assert found.params == {"progress": 1, "total": None}
