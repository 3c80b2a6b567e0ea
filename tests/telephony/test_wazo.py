"""Wazo, and the events of Asterisk that come the same way."""

import pytest

from schemas.calls import CallKind
from tests.telephony.shapes import Body, event, ignored, problem, sample

CREATED = sample("wazo/call_created.json")
ENDED = sample("wazo/call_ended.json")


def having(body: Body, **data: object) -> Body:
    return {**body, "data": {**body["data"], **data}}


def test_an_answer_says_that_the_call_is_up() -> None:
    assert event({**CREATED, "name": "call_answered"}).kind is CallKind.PROGRESS


@pytest.mark.parametrize("name", ["call_held", "call_dtmf_created", "user_created", "", None, 5])
def test_other_events_are_ignored(name: object) -> None:
    assert ignored({**ENDED, "name": name}).source == "wazo"


@pytest.mark.parametrize(("code", "reason"), [(16, "16"), (17, "17"), (0, "0"), ("16", "16"), (None, None)])
def test_the_reason_code_is_text(code: object, reason: str | None) -> None:
    assert event(having(ENDED, reason_code=code)).end_reason == reason


@pytest.mark.parametrize(
    ("is_caller", "parties"), [(True, ("1001", "1002")), (False, ("1002", "1001")), (None, ("1001", "1002"))]
)
def test_the_caller_id_is_that_of_the_legs_own_user(is_caller: object, parties: tuple[str, str]) -> None:
    got = event(having(CREATED, is_caller=is_caller))
    assert (got.from_, got.to) == parties


@pytest.mark.parametrize("direction", ["internal", "inbound", "outbound", "unknown", None])
def test_the_direction_is_one_of_three_or_none(direction: str | None) -> None:
    assert event(having(CREATED, direction=direction)).direction == (direction if direction != "unknown" else None)


def test_a_time_without_an_offset_is_utc_and_one_with_an_offset_is_converted() -> None:
    got = event(CREATED).occurred_at
    assert got is not None
    assert got.isoformat() == "2025-03-12T10:15:30.123456+00:00"
    ended = event({**ENDED, "timestamp": None}).occurred_at
    assert ended is not None
    assert ended.isoformat() == "2025-03-12T14:16:30+00:00"


def test_legs_of_a_conversation_are_calls_of_their_own() -> None:
    got = event(having(ENDED, call_id="sys-1741788930.13"))
    assert (got.call_id, got.parent_call_id) == ("sys-1741788930.13", None)
    assert got.attributes["conversation_id"] == "1741788930.12"


def test_an_id_that_lost_its_quotes_is_refused() -> None:
    assert problem(having(CREATED, call_id=1741788930.12)) == (
        "wazo: call_id must be text or a whole number, is a number with a fraction"
    )


@pytest.mark.parametrize("data", [None, [], "x", 5])
def test_data_must_be_an_object(data: object) -> None:
    assert problem({**CREATED, "data": data}).startswith("wazo: data must be an object, is ")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"name": "ChannelCreated", "data": {"type": "ChannelCreated", "channel": {"id": "1.2"}}}, "ChannelCreated"),
        ({"name": "StasisEnd", "data": {"type": "StasisEnd", "application": "app"}}, "StasisEnd"),
        ({"name": "Hangup", "data": {"Event": "Hangup", "Uniqueid": "1.2", "Channel": "PJSIP/x"}}, "Hangup"),
    ],
)
def test_what_else_of_asterisk_is_on_the_bus_is_known_and_opens_nothing(body: Body, what: str) -> None:
    found = ignored(body)
    assert (found.source, found.what) == ("asterisk", what)


@pytest.mark.parametrize("body", [{"name": "x", "data": {}}, {"type": "message"}, {"Event": "x"}])
def test_a_name_alone_does_not_make_an_event_of_theirs(body: Body) -> None:
    assert "no known platform" in problem(body)


@pytest.mark.parametrize(
    ("status", "state"), [("Up", "answered"), ("Ring", "ringing"), ("Down", "created"), ("", None), (None, None)]
)
def test_an_update_says_that_the_call_lives_and_its_status_how_far_it_is(status: object, state: str | None) -> None:
    got = event({**having(CREATED, status=status), "name": "call_updated"})
    assert (got.kind, got.attributes.get("call_state")) == (CallKind.PROGRESS, state)
