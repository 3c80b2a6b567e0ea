"""What comes back: read as it was written, and refused in words when it is no reply."""

import pytest

from schemas.errors import Internal, SessionNotFound
from schemas.replies import failed, parse_reply, succeeded


def test_a_reply_is_read_as_it_was_written():
    assert parse_reply(succeeded({"text": "hello", "parts": [1, None, {"ü": 0.5}]}).dump()).unwrap() == {
        "text": "hello",
        "parts": [1, None, {"ü": 0.5}],
    }
    with pytest.raises(SessionNotFound, match="gone") as caught:
        parse_reply(failed(SessionNotFound("it is gone", session_id="c-1")).dump()).unwrap()
    assert caught.value.details == {"session_id": "c-1"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff",
        b"[1]",
        b"{}",
        b'{"ok": true}',
        b'{"ok": "true", "result": {}}',
        b'{"ok": false, "result": {}}',
    ],
)
def test_what_is_no_reply_is_said_in_a_line(body: bytes):
    with pytest.raises(Internal, match=r"^the response is not a reply: [^\n]+$"):
        parse_reply(body)
