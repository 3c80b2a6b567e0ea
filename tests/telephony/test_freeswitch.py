"""FreeSWITCH mod_amqp: legs, ends, attributes of huge events."""

import json

import pytest

from schemas.calls import CallKind
from tests.telephony.shapes import Body, event, ignored, problem, raw, sample

CREATE = sample("freeswitch_amqp/CHANNEL_CREATE_inbound.json")
B_LEG = sample("freeswitch_amqp/CHANNEL_CREATE_b_leg.json")


@pytest.mark.parametrize("name", ["CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_DESTROY"])
def test_each_of_the_three_end_signals_is_an_end(name: str) -> None:
    got = event({**CREATE, "Event-Name": name, "Hangup-Cause": "LOSE_RACE"})
    assert (got.kind, got.end_reason) == (CallKind.ENDED, "LOSE_RACE")


def test_a_cause_may_be_absent_or_only_a_variable() -> None:
    assert event({**CREATE, "Event-Name": "CHANNEL_HANGUP"}).end_reason is None
    late = {**CREATE, "Event-Name": "CHANNEL_DESTROY", "variable_hangup_cause": "MEDIA_TIMEOUT"}
    assert event(late).end_reason == "MEDIA_TIMEOUT"


@pytest.mark.parametrize(
    "name",
    [
        "CHANNEL_STATE",
        "CHANNEL_CALLSTATE",
        "CHANNEL_ORIGINATE",
        "CHANNEL_OUTGOING",
        "CHANNEL_PROGRESS",
        "CHANNEL_BRIDGE",
        "CHANNEL_UNBRIDGE",
        "CHANNEL_HOLD",
        "CHANNEL_EXECUTE",
        "CHANNEL_UUID",
        "CHANNEL_DATA",
        "CALL_UPDATE",
        "RECORD_STOP",
        "CUSTOM",
        "RE_SCHEDULE",
    ],
)
def test_other_events_are_ignored_by_name(name: str) -> None:
    found = ignored({**CREATE, "Event-Name": name, "Answer-State": "hangup", "Old-Unique-ID": "before"})
    assert (found.source, found.what) == ("freeswitch_amqp", name)


def test_a_b_leg_is_its_own_call_though_its_channel_call_uuid_is_the_a_legs() -> None:
    got = event(B_LEG)
    assert got.call_id == B_LEG["Unique-ID"] != B_LEG["Channel-Call-UUID"]
    assert got.parent_call_id == B_LEG["variable_originating_leg_uuid"]


def test_a_parent_is_also_the_other_leg_if_that_is_the_originator() -> None:
    bare = {name: value for name, value in B_LEG.items() if not name.startswith("variable_")}
    assert event(bare).parent_call_id == B_LEG["Other-Leg-Unique-ID"]


def test_the_a_leg_has_no_parent_though_it_has_another_leg() -> None:
    a_leg = sample("freeswitch_amqp/CHANNEL_DESTROY_inbound.json")
    assert a_leg["Other-Type"] == "originatee"
    assert event(a_leg).parent_call_id is None


def test_a_leg_is_not_its_own_parent() -> None:
    assert event({**CREATE, "variable_originating_leg_uuid": CREATE["Unique-ID"]}).parent_call_id is None


def test_a_hangup_of_a_channel_that_nobody_saw_created_is_an_end() -> None:
    body = {
        "Event-Name": "CHANNEL_HANGUP",
        "Core-UUID": "x",
        "Channel-State": "CS_NEW",
        "Unique-ID": "u-1",
        "Hangup-Cause": "CALL_REJECTED",
    }
    got = event(body)
    assert (got.kind, got.call_id, got.end_reason, got.from_) == (CallKind.ENDED, "u-1", "CALL_REJECTED", None)


def test_a_loopback_leg_is_a_leg_that_a_route_can_leave_out() -> None:
    got = event({**B_LEG, "Channel-Name": "loopback/1001-b"})
    assert (got.kind, got.attributes["endpoint"]) == (CallKind.STARTED, "loopback")


@pytest.mark.parametrize(
    "call_id", ["b1f0@10.1.1.31", "a.b-c_d+e=f%g!h~i*j'k(l)<m>:n/o?p[q]{r}\\s\"t", "x" * 255, " padded "]
)
def test_a_sip_call_id_is_taken_as_it_is(call_id: str) -> None:
    assert event({**CREATE, "Unique-ID": call_id}).call_id == call_id


def test_a_hash_is_escaped_because_session_ids_need_it() -> None:
    assert event({**CREATE, "Unique-ID": "a#b"}).call_id == "a%23b"


def test_a_key_that_comes_twice_is_read() -> None:
    body = raw("freeswitch_amqp/CHANNEL_HANGUP_COMPLETE_inbound.json")
    assert body.count(b'"Hangup-Cause"') == 2
    assert event(body).end_reason == "NORMAL_CLEARING"


def test_the_time_is_in_microseconds() -> None:
    got = event(CREATE).occurred_at
    assert got is not None
    assert got.isoformat() == "2025-04-18T14:24:01.847058+00:00"


@pytest.mark.parametrize("stamp", ["0", "", "never", "-1", "9" * 400, "nan", "inf", None, [], 1744986241])
def test_an_absurd_time_is_none(stamp: object) -> None:
    assert event({**CREATE, "Event-Date-Timestamp": stamp}).occurred_at is None


def test_parties_fall_back_to_what_else_is_known() -> None:
    bare = {"Event-Name": "CHANNEL_CREATE", "Unique-ID": "u-1"}
    got = event({**bare, "Caller-ANI": "1000", "Caller-Callee-ID-Number": "1001"})
    assert (got.from_, got.to) == ("1000", "1001")
    got = event({**bare, "variable_sip_from_user": "1000", "variable_sip_req_user": "1001"})
    assert (got.from_, got.to) == ("1000", "1001")


def test_a_dialplans_own_variables_and_sip_headers_are_attributes_and_the_switchs_are_not() -> None:
    got = event(
        {
            **CREATE,
            "variable_tenant": "acme",
            "variable_skills": ["sales", "french"],
            "variable_sip_h_X-Tenant": "acme",
            "variable_essay": "x" * 300,
        }
    )
    assert got.attributes["variable_tenant"] == "acme"
    assert got.attributes["variable_skills"] == "sales,french"
    assert got.attributes["sip_header_x-tenant"] == "acme"
    assert {"context", "hostname", "endpoint"} <= set(got.attributes)
    assert [name for name in got.attributes if name.startswith("variable_")] == ["variable_tenant", "variable_skills"]


def test_a_giant_event_stays_small() -> None:
    giant: Body = {
        **CREATE,
        **{f"variable_custom_{n}": "\N{SNOWMAN}" * 100 for n in range(5000)},
        "Caller-Context": "x" * 10**6,
    }
    got = event(giant)
    assert len(got.attributes) <= 64
    assert len(got.attributes["context"]) == 1024
    assert len(got.model_dump_json()) < 64 * 1024


@pytest.mark.parametrize("gone", ["Unique-ID"])
def test_a_channel_event_without_its_channel_is_refused(gone: str) -> None:
    body = {name: value for name, value in CREATE.items() if name != gone}
    assert problem(body) == "freeswitch_amqp: Unique-ID is missing, so the call is unknown"


def test_nested_values_where_text_belongs_do_no_harm() -> None:
    odd = {name: {"x": value} for name, value in CREATE.items() if name not in ("Event-Name", "Unique-ID")}
    got = event(json.dumps({**CREATE, **odd}).encode())
    assert (got.from_, got.to, got.direction, got.occurred_at) == (None, None, None, None)
