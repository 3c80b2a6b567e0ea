"""Our own normalised event: the strict one."""

import pytest

from schemas.calls import CallKind
from tests.telephony.shapes import Body, event, problem

FULL: Body = {
    "call_id": "c-1",
    "kind": "started",
    "source": "pbx",
    "direction": "inbound",
    "from": "+1555",
    "to": "+1666",
    "parent_call_id": "a-leg",
    "occurred_at": "2025-03-12T10:15:30+00:00",
    "attributes": {"tenant": "acme", "deep": {"er": [1, 2]}},
}


def test_an_own_event_is_taken_as_it_is() -> None:
    got = event(FULL)
    assert got.model_dump(mode="json", exclude_none=True) == FULL
    assert event(got.model_dump_json().encode()) == got


def test_two_fields_are_enough() -> None:
    got = event({"call_id": "c-1", "kind": "ended"})
    assert (got.kind, got.source, got.call_id) == (CallKind.ENDED, "custom", "c-1")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"reason": "busy"}, "reason: is unknown; did you mean end_reason?"),
        ({"kind": "finished"}, "kind:"),
        ({"kind": None}, "kind:"),
        ({"kind": ["started"]}, "kind:"),
        ({"call_id": 5}, "call_id:"),
        ({"call_id": ""}, "call_id:"),
        ({"call_id": "x" * 256}, "call_id:"),
        ({"direction": "sideways"}, "direction:"),
        ({"occurred_at": "2025-03-12T10:15:30"}, "occurred_at:"),
        ({"occurred_at": 1741694585}, "occurred_at:"),
        ({"attributes": "x"}, "attributes:"),
        ({"to": 1666}, "to:"),
    ],
)
def test_what_is_wrong_is_refused_with_the_fields_name(change: Body, named: str) -> None:
    said = problem({**FULL, **change})
    assert said.startswith("custom: ")
    assert named in said


def test_a_fields_name_cannot_break_the_sentence() -> None:
    assert "a b: is unknown; known: " in problem({**FULL, "a\n\tb": 1})


def test_a_missing_call_id_is_named() -> None:
    assert problem({"kind": "started"}) == "custom: call_id: Field required"


def test_a_hash_is_escaped() -> None:
    assert event({**FULL, "call_id": "a#b"}).call_id == "a%23b"


@pytest.mark.parametrize(
    "attributes", [b'{"x": NaN}', b'{"x": Infinity}', b'{"x": 1e400}', b'{"x": ' + b"9" * 4000 + b"}"]
)
def test_numbers_beyond_json_leave_an_event_that_can_be_sent(attributes: bytes) -> None:
    got = event(b'{"call_id": "c-1", "kind": "started", "attributes": ' + attributes + b"}")
    event(got.model_dump_json().encode())


@pytest.mark.parametrize("letter", [b"\xe9", b"\\ud83d"])
def test_a_letter_that_is_no_text_is_replaced_but_not_in_an_id(letter: bytes) -> None:
    got = event(b'{"call_id": "c-1", "kind": "started", "to": "Jos%s", "attributes": {"a": ["%s"]}}' % (letter, letter))
    assert (got.to, got.attributes) == ("Jos\ufffd", {"a": ["\ufffd"]})
    assert "call_id: is not valid Unicode" in problem(b'{"call_id": "c%s", "kind": "started"}' % letter)


def test_a_replacement_that_somebody_else_made_is_a_letter_like_any_other() -> None:
    assert event({**FULL, "call_id": "c-\ufffd"}).call_id == "c-\ufffd"
