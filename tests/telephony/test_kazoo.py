"""Kazoo: channels, legs, parties."""

import pytest

from schemas.calls import CallKind
from tests.telephony.shapes import event, ignored, problem, sample

CREATE = sample("kazoo/CHANNEL_CREATE.json")
DESTROY = sample("kazoo/CHANNEL_DESTROY.json")


def test_an_answer_says_that_the_call_is_up() -> None:
    assert event({**CREATE, "Event-Name": "CHANNEL_ANSWER"}).kind is CallKind.PROGRESS


@pytest.mark.parametrize(
    "name",
    ["LEG_CREATED", "LEG_DESTROYED", "CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE", "CHANNEL_HOLD", "DTMF", "usurp_control"],
)
def test_the_other_legs_events_and_the_rest_are_ignored(name: str) -> None:
    found = ignored({**DESTROY, "Event-Name": name})
    assert (found.source, found.what) == ("kazoo", name)


@pytest.mark.parametrize("category", ["conference", "directory", "presence"])
def test_other_categories_are_ignored(category: str) -> None:
    body = {"Event-Category": category, "Event-Name": "CHANNEL_DESTROY", "Call-ID": "c-1"}
    assert ignored(body).what == f"{category} CHANNEL_DESTROY"


def test_kazoo_and_freeswitch_are_told_apart() -> None:
    assert event(DESTROY).source == "kazoo"
    without_category = {name: value for name, value in DESTROY.items() if name != "Event-Category"}
    assert event(without_category).source == "kazoo"


def test_seconds_may_be_numbers_or_text() -> None:
    typed = {**DESTROY, "Billing-Seconds": 31, "Duration-Seconds": 32, "Ringing-Seconds": 0}
    assert event(typed) == event(DESTROY)
    assert event({**DESTROY, "Timestamp": str(DESTROY["Timestamp"])}) == event(DESTROY)


def test_the_time_is_counted_from_the_year_zero() -> None:
    got = event(CREATE).occurred_at
    assert got is not None
    assert got.isoformat() == "2015-10-01T03:26:40+00:00"
    assert event({**CREATE, "Timestamp": 1443670000}).occurred_at is None


def test_parties_are_users_without_their_realm() -> None:
    got = event(CREATE)
    assert (got.from_, got.to) == ("356", "*97")
    bare = {name: value for name, value in CREATE.items() if name not in ("Caller-ID-Number", "Request")}
    assert (event(bare).from_, event(bare).to) == ("356", "*97")
    assert event({**CREATE, "Request": "sip:+1555@x"}).to == "+1555"


def test_an_outbound_leg_has_the_other_leg_as_its_parent_and_an_inbound_one_has_not() -> None:
    other = {**CREATE, "Other-Leg-Call-ID": "a-leg"}
    assert event({**other, "Call-Direction": "outbound"}).parent_call_id == "a-leg"
    assert event(other).parent_call_id is None


def test_account_and_headers_are_attributes() -> None:
    got = event({**CREATE, "Custom-SIP-Headers": {"X-Tenant": "acme", "X-Deep": {}}})
    assert got.attributes["account_id"] == "1f6b0c2d9e8a47535b1d7c90aa34ef21"
    assert got.attributes["sip_header_x-tenant"] == "acme"
    assert "sip_header_x-deep" not in got.attributes


@pytest.mark.parametrize("variables", [None, [], "x", {}])
def test_odd_channel_variables_do_no_harm(variables: object) -> None:
    assert event({**CREATE, "Custom-Channel-Vars": variables, "Custom-SIP-Headers": variables}).kind is CallKind.STARTED


def test_a_sip_call_id_of_any_form_is_taken() -> None:
    assert event({**CREATE, "Call-ID": "NzY4[x]+@10.0.0.9:5060"}).call_id == "NzY4[x]+@10.0.0.9:5060"


def test_an_event_without_its_call_is_refused() -> None:
    body = {name: value for name, value in CREATE.items() if name != "Call-ID"}
    assert problem(body) == "kazoo: Call-ID is missing, so the call is unknown"
