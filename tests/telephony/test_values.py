"""Identities, texts, times and attributes, as every translator reads them."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from consumer.telephony import times, values
from schemas.calls import CallEvent, CallKind
from schemas.ids import escape_call_id
from tests.telephony.shapes import event, problem

Read = Callable[[object], datetime | None]

SHAPES = {
    "relay": ({"event_type": "calling.call.state", "params": {"call_state": "ended", "call_id": None}}, "call_id"),
    "swml_status": ({"call_state": "ended", "call_id": None}, "call_id"),
    "cxml": ({"CallStatus": "completed", "CallSid": None}, "CallSid"),
    "swaig": ({"function": "hangup_hook", "argument": {}, "call_id": None}, "call_id"),
    "freeswitch_amqp": ({"Event-Name": "CHANNEL_DESTROY", "Unique-ID": None}, "Unique-ID"),
    "kazoo": ({"Event-Name": "CHANNEL_DESTROY", "Event-Category": "call_event", "Call-ID": None}, "Call-ID"),
    "wazo": ({"name": "call_ended", "origin_uuid": "o", "data": {"call_id": None}}, "call_id"),
}


def with_id(source: str, call_id: object) -> object:
    def put(value: object) -> object:
        if isinstance(value, dict):
            return {name: put(inner) if isinstance(inner, dict) else inner for name, inner in value.items()} | (
                {field: call_id} if field in value else {}
            )
        return value

    body, field = SHAPES[source]
    return put(body)


@pytest.mark.parametrize("source", SHAPES)
@pytest.mark.parametrize(
    ("call_id", "said"),
    [
        ("", "is empty"),
        ("  \t", "is empty"),
        (None, "must be text or a whole number, is null"),
        (1741788930.12, "is a number with a fraction"),
        (1.0, "is a number with a fraction"),
        (True, "is true or false"),
        ({"id": "x"}, "is an object"),
        ("x" * 256, "must be at most 255 bytes long, is 256"),
        ("\N{SNOWMAN}" * 86, "must be at most 255 bytes long, is 258"),
        ("x" * 254 + "#", "must be at most 255 bytes long, is 257"),
        (10**300, "must be at most 255 bytes long, is 301"),
        ("\ud800", "is not valid Unicode"),
    ],
)
def test_an_unusable_id_is_refused_by_name(source: str, call_id: object, said: str) -> None:
    found = problem(with_id(source, call_id))
    assert found.startswith(f"{source}: {SHAPES[source][1]} ")
    assert said in found


@pytest.mark.parametrize("source", SHAPES)
@pytest.mark.parametrize(
    "call_id",
    ["x", "x" * 255, "1741788930.12", "a@b:/[x]+...", "\N{SNOWMAN}" * 85, "null", "0", 0, 12345678901234567890],
)
def test_an_id_is_opaque(source: str, call_id: object) -> None:
    got = event(with_id(source, call_id))
    assert (got.call_id, got.source) == (str(call_id), source)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x", "x"),
        ("", None),
        (" ", None),
        (None, None),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (1.5, "1.5"),
        (float("nan"), None),
        (float("inf"), None),
        ([], None),
        ({}, None),
        ("\ud800", "\ufffd"),
        ("x" * 5000, "x" * 1024),
        ("\N{SNOWMAN}" * 5000, "\N{SNOWMAN}" * 341),
    ],
)
def test_text_is_valid_and_bounded(value: object, shown: str | None) -> None:
    assert values.text(value) == shown


def test_attributes_are_few_and_the_first_of_a_name_wins() -> None:
    pairs = [("a", None), ("a", 1), ("a", 2), ("n" * 500, "x"), ("\ud800", "x"), *((f"k{n}", n) for n in range(500))]
    found = values.attributes(pairs)
    assert found["a"] == "1"
    assert len(found) == values.MAX_ATTRIBUTES
    assert all(len(name) <= values.MAX_NAME_BYTES for name in found)


def test_an_event_is_valid_and_bounded_whatever_it_is_made_of() -> None:
    made = values.translated(
        "x",
        CallKind.ENDED,
        escape_call_id("c-1"),
        direction="x" * 5000,
        end_reason="\ud800" * 5000,
        about=((f"k{n}", "\udfff" * 5000) for n in range(500)),
    ).event
    assert len(made.attributes) == values.MAX_ATTRIBUTES
    assert CallEvent.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (times.seconds, 1741694585.5),
        (times.seconds, "1741694585.5"),
        (times.milliseconds, 1741694585500),
        (times.milliseconds, "1741694585500"),
        (times.microseconds, 1741694585500000),
        (times.microseconds, "1741694585500000"),
        (times.gregorian_seconds, 1741694585.5 + times.GREGORIAN_OFFSET),
        (times.iso, "2025-03-11T12:03:05.500Z"),
        (times.iso, "2025-03-11T12:03:05.500"),
        (times.iso, "2025-03-11T08:03:05.500-0400"),
        (times.iso, " 2025-03-11 13:03:05.500+01:00 "),
    ],
)
def test_a_moment_is_read_in_the_unit_of_its_field(read: Read, value: object) -> None:
    assert read(value) == datetime(2025, 3, 11, 12, 3, 5, 500_000, tzinfo=UTC)


def test_mail_dates_have_offsets_and_may_lack_them() -> None:
    noon = datetime(2025, 3, 11, 12, 10, tzinfo=UTC)
    assert times.rfc2822("Tue, 11 Mar 2025 12:10:00 +0000") == noon
    assert times.rfc2822("Tue, 11 Mar 2025 08:10:00 -0400") == noon
    assert times.rfc2822("11 Mar 2025 12:10:00 -0000") == noon
    assert times.rfc2822("Tue, 11 Mar 2025 12:10:00 GMT") == noon


@pytest.mark.parametrize(
    "value",
    [0, "0", -1, 10**30, -(10**400), "9" * 5000, "", "x", None, True, [], {}, float("nan"), float("-inf"), "1e400"],
)
@pytest.mark.parametrize(
    "read", [times.seconds, times.milliseconds, times.microseconds, times.gregorian_seconds, times.iso, times.rfc2822]
)
def test_an_absurd_moment_is_none(read: Read, value: object) -> None:
    assert read(value) is None


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1999-12-31T23:59:59"])
def test_a_moment_outside_this_century_is_none(value: str) -> None:
    assert times.iso(value) is None


def test_moments_are_in_utc() -> None:
    found = times.iso("2025-03-11T13:03:05+01:00")
    assert found is not None
    assert found.tzinfo is UTC
