"""Bytes: encodings, quoting, forms, and what nobody can read."""

import gzip
import json

import pytest

from tests.telephony.shapes import event, problem, raw

EVENT = b'{"call_id": "c-1", "kind": "started"}'


@pytest.mark.parametrize(
    "body",
    [
        EVENT,
        b"\xef\xbb\xbf" + EVENT,
        b"\r\n\t " + EVENT + b"\n\n",
        json.dumps(EVENT.decode()).encode(),
        b"\xef\xbb\xbf " + json.dumps(json.dumps(EVENT.decode())).encode(),
        json.dumps("\ufeff" + EVENT.decode()).encode(),
        b"call_id=c-1&kind=started",
        json.dumps("call_id=c-1&kind=started").encode(),
    ],
)
@pytest.mark.parametrize("content_type", [None, "text/json", "application/json; charset=utf-8", "text/plain", ""])
def test_a_body_is_read_however_it_was_wrapped(body: bytes, content_type: str | None) -> None:
    assert event(body, content_type=content_type).call_id == "c-1"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b'""', "the body is empty"),
        (b"\xff\xfe{\x00}\x00", "the body is not UTF-8 (byte 0)"),
        (gzip.compress(b'{"call_id": "c-1"}', mtime=0), "the body is compressed with gzip"),
        (b'{"a": "\xc3\xa9\xe9', "the body is not UTF-8 (byte 9), so it cannot be JSON"),
        (b'{"a": "\xe9"}', "no known platform sends an object with these fields: 'a'"),
        (b"{'event_type': 'calling.call.state'}", "the body is broken JSON"),
        (b'{"event_type": "calling.call', "the body is broken JSON"),
        (b'{"a": 1} trailing', "the body is broken JSON"),
        (b"hello", "the body is neither JSON nor a form"),
        (b"<Response/>", "the body is neither JSON nor a form"),
        (b"Event-Name: CHANNEL_CREATE\nUnique-ID: x=y\n", "the body is neither JSON nor a form"),
        (b"[]", "the body must be a JSON object or a form, is an array"),
        (b"[{}]", "the body must be a JSON object or a form, is an array"),
        (b"null", "the body must be a JSON object or a form, is null"),
        (b"5", "the body must be a JSON object or a form, is a number"),
        (b"NaN", "the body must be a JSON object or a form, is a number"),
        (b"true", "the body must be a JSON object or a form, is true or false"),
        (b"[" * 100_000, "the body is JSON nested too deeply to read"),
        (b'{"a":' * 100_000, "the body is JSON nested too deeply to read"),
        (b'{"a": [' + b"1," * 100_000 + b"1]}", "the body has more than 100000 JSON values"),
        (json.dumps(json.dumps({"a": [1] * 100_001})).encode(), "the body has more than 100000 JSON values"),
        (b'{"a":' + b"9" * 5000 + b"}", "the body is JSON with a value that cannot be read"),
        (b"&".join(b"f%d=x" % n for n in range(2000)), "the body is a form that cannot be read"),
        (b"{}", "no known platform sends an object with these fields: none"),
        (b"a=b", "no known platform sends an object with these fields: 'a'"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(body: bytes, said: str) -> None:
    found = problem(body)
    assert found.startswith(said)
    assert "\n" not in found
    assert len(found) < 300


def test_text_quoted_too_often_is_given_up() -> None:
    body = EVENT.decode()
    for _ in range(9):
        body = json.dumps(body)
    assert problem(body.encode()) == "the body must be a JSON object or a form, is text"


def test_an_unknown_object_is_described_by_its_fields_and_its_routing_key() -> None:
    body = {f"key{n}": n for n in range(20)} | {"x" * 5000: 1}
    said = problem(body, routing_key="calls.x", headers={"x-death": []})
    assert said.endswith("'key7', ..., routing key 'calls.x'")
    assert len(said) < 300


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "APPLICATION/X-WWW-FORM-URLENCODED;charset=x"]
)
@pytest.mark.parametrize("where", ["property", "header", "bytes header"])
def test_a_declared_form_need_not_look_like_one(content_type: str, where: str) -> None:
    body = b"CallSid=c-1&CallStatus=completed&CallerName=Jane Doe"
    if where == "property":
        assert event(body, content_type=content_type).attributes["caller_name"] == "Jane Doe"
    else:
        value: object = content_type if where == "header" else content_type.encode()
        assert event(body, headers={"Content-Type": value}).attributes["caller_name"] == "Jane Doe"


def test_the_same_body_gives_the_same_event() -> None:
    body = raw("relay/receive_created_phone.json")
    assert event(body) == event(body)
