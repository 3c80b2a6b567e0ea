"""A letter in another encoding, as SIP headers bring it: replaced, wherever in a platform's event it is."""

import json

import pytest

from tests.telephony.shapes import event, problem, raw

LATIN = "José".encode("latin-1")


def with_name(file: str, name: str, value: bytes) -> bytes:
    """A sample with the text ``name`` as other bytes."""
    body = raw(file)
    assert name.encode() in body
    return body.replace(name.encode(), value)


@pytest.mark.parametrize("name", [LATIN, b"Jos\\ud83d", b"Jos\xff"])
def test_a_callers_name_loses_the_letter_and_not_the_call(name: bytes) -> None:
    body = b'{"Event-Name":"CHANNEL_CREATE","Unique-ID":"lat-1","Caller-Caller-ID-Name":"%s"}' % name
    got = event(body)
    assert (got.call_id, got.attributes["caller_name"]) == ("lat-1", "Jos\ufffd")


def test_so_in_every_wrapping() -> None:
    body = with_name("wazo/call_created.json", "Alice", LATIN)
    assert event(body).attributes["caller_name"] == "Jos\ufffd"
    quoted = json.dumps(body.decode("latin-1")).encode("ascii").replace(b"\\u00e9", b"\xe9")
    assert event(quoted).attributes["caller_name"] == "Jos\ufffd"
    assert event(b"CallSid=c-1&CallStatus=completed&CallerName=Jos%E9").attributes["caller_name"] == "Jos\ufffd"
    assert event(b"CallSid=c-1&CallStatus=completed&CallerName=Jos\xe9").attributes["caller_name"] == "Jos\ufffd"


@pytest.mark.parametrize(
    "body",
    [
        b'{"Event-Name":"CHANNEL_CREATE","Unique-ID":"lat-\xe9"}',
        b"CallSid=lat-%E9&CallStatus=completed",
        b"CallSid=lat-\xe9&CallStatus=completed",
    ],
)
def test_only_an_id_that_is_not_readable_is_unusable(body: bytes) -> None:
    assert "is not valid Unicode" in problem(body)
