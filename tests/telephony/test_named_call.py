"""The call that an unreadable event names: a word for a search, never more."""

import pytest

from consumer.telephony import named_call


@pytest.mark.parametrize(
    ("body", "headers", "call"),
    [
        (b'{"call_id": "c-1", "kind": "started", "ki', {}, "c-1"),
        (b'[{"params": {"call_id":"c-1"}}]', {}, "c-1"),
        (b'{"Unique-ID": "c-1", "Event-Name": "NONSENSE"}', {}, "c-1"),
        (b"CallSid=CA1%2B2&CallStatus=nonsense", {}, "CA1+2"),
        (b"Status=x&CallUUID=c-1", {}, "c-1"),
        (b'{"call_id": "a#b"}', {}, "a%23b"),
        (b"nonsense", {"Call-ID": "c-1"}, "c-1"),
        (b'{"parent_call_id": "c-1"}', {}, None),
        (b'{"call_id": "a\\u0000b"}', {}, None),
        (b'{"call_id": 7}', {}, None),
        (b'{"call_id": ""}', {}, None),
        (b'{"call_id": "' + b"x" * 300 + b'"}', {}, None),
        (b"\xff\xfe", {}, None),
        (b"", {"call_id": "\ud800"}, None),
    ],
)
def test_the_call_of_an_unreadable_event(body: bytes, headers: dict[str, object], call: str | None):
    assert named_call(body, headers) == call
