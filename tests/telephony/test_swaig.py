"""SWAIG: hooks, functions, conversations, the debug feed; ai and Bedrock."""

import pytest

from schemas.calls import CallKind
from tests.telephony.shapes import Body, event, ignored, problem, sample

BEDROCK: Body = {
    "function": "get_weather",
    "argument": {"parsed": [{"city": "San Francisco"}], "raw": '{"city":"San Francisco"}'},
    "call_id": "c-1",
    "ai_session_id": "c-1",
    "app_name": "bedrock",
    "caller_id": "+15555550100",
    "global_data": {"customer_tier": "premium"},
    "content_type": "text/json",
    "content_disposition": "agent.function",
    "conversation_type": "voice",
    "action": "fetch_conversation",
    "call_start_date": 1741695295773508,
    "call_end_date": 0,
    "meta_data_token": "d742c5d1d969d9fdbbd9bd1c52499f2d",
    "meta_data": {},
}
INFO: Body = {"call_id": "c-1", "project_id": "p-1", "content_type": "text/json", "conversation_type": "voice"}


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        ("startup_hook", CallKind.STARTED),
        ("hangup_hook", CallKind.ENDED),
        ("get_weather", CallKind.PROGRESS),
        ("hangup", CallKind.PROGRESS),
    ],
)
def test_the_hooks_are_start_and_end_and_any_other_function_says_that_the_call_is_up(
    function: str, kind: CallKind
) -> None:
    assert event({**sample("swaig/function_get_weather.json"), "function": function}).kind is kind
    assert event({**BEDROCK, "function": function}).kind is kind


def test_a_bedrock_function_is_not_taken_for_the_fetch_that_its_action_names() -> None:
    got = event(BEDROCK)
    assert (got.kind, got.from_, got.attributes["app_name"]) == (CallKind.PROGRESS, "+15555550100", "bedrock")
    assert event({**BEDROCK, "caller_id": ""}).from_ is None


def test_a_bedrock_report_is_the_end() -> None:
    body = {name: value for name, value in BEDROCK.items() if name not in ("function", "argument", "caller_id")}
    got = event({**body, "action": "post_conversation", "ai_end_date": 1741695335425164, "caller_id_number": "+1"})
    assert (got.kind, got.from_) == (CallKind.ENDED, "+1")
    assert got.occurred_at is not None
    assert got.occurred_at.isoformat() == "2025-03-11T12:15:35.425164+00:00"


def test_a_startup_hook_has_the_time_of_the_calls_start_if_any() -> None:
    got = event({**BEDROCK, "function": "startup_hook"})
    assert got.occurred_at is not None
    assert got.occurred_at.isoformat() == "2025-03-11T12:14:55.773508+00:00"
    assert event(sample("swaig/startup_hook.json")).occurred_at is None


@pytest.mark.parametrize("disposition", ["agent.load_conversation", "agent.summary"])
def test_a_conversation_that_is_fetched_does_not_end_the_call(disposition: str) -> None:
    body = {**sample("swaig/post_prompt_summary.json"), "action": "fetch_conversation"}
    del body["post_prompt_data"]
    assert ignored({**body, "content_disposition": disposition}).what == "fetch_conversation"


def test_a_hard_timeout_is_the_reason_of_an_end() -> None:
    body = sample("swaig/post_prompt_summary.json")
    assert event(body).end_reason is None
    assert event(body).attributes["ended_by"] == "assistant"
    assert event({**body, "hard_timeout": True}).end_reason == "hard_timeout"


def test_a_report_without_an_action_is_known_by_its_summary() -> None:
    assert event({"call_id": "c-1", "post_prompt_data": {"raw": "done"}}).kind is CallKind.ENDED


@pytest.mark.parametrize(
    "body",
    [
        {**BEDROCK, "conversation_type": "chat"},
        {**BEDROCK, "function": "hangup_hook", "conversation_type": "chat"},
        {"call_info": {**INFO, "conversation_type": "chat"}, "session_end": {"reason": "normal"}},
    ],
)
def test_a_chat_is_no_call(body: Body) -> None:
    assert ignored(body).what == "chat"


def test_a_signature_request_is_no_call_even_with_hooks_in_it() -> None:
    body = {"action": "get_signature", "functions": ["startup_hook"], "content_type": "text/swaig", "call_id": "c-1"}
    assert ignored(body).what == "get_signature"


def test_the_call_may_be_an_object() -> None:
    call = {
        "call_id": "c-1",
        "direction": "inbound",
        "from": "+1555",
        "to": "+1666",
        "type": "phone",
        "parent": {"call_id": "a-leg"},
    }
    got = event({"function": "startup_hook", "argument": {}, "call": call, "vars": {}})
    assert (got.source, got.call_id, got.kind, got.parent_call_id) == ("swaig", "c-1", CallKind.STARTED, "a-leg")
    assert (got.direction, got.from_, got.to, got.attributes["device_type"]) == ("inbound", "+1555", "+1666", "phone")


def test_swml_call_state_gives_direction_and_parties_but_not_the_identity() -> None:
    swml = {"direction": "inbound", "from": "+1555", "to": "+1666", "call_state": "answered", "call_id": "other"}
    got = event({"function": "f", "argument": {}, "call_id": "c-1", "SWMLCall": swml})
    assert (got.call_id, got.direction, got.from_, got.to) == ("c-1", "inbound", "+1555", "+1666")
    numbers = {"to_number": "+16025550100", "from_number": "+16025550101"}
    old = event({"call_id": "c-1", "post_prompt_data": {}, "SWMLCall": numbers})
    assert (old.from_, old.to) == ("+16025550101", "+16025550100")


def test_a_sidecars_function_names_its_call_in_the_channel_data() -> None:
    channel = {"call_id": "c-1", "caller_id_number": "+1555", "destination_number": "+1666", "caller_id_name": "Jane"}
    got = event({"function": "lookup", "argument": {"parsed": []}, "channel_data": channel})
    assert (got.call_id, got.from_, got.to, got.attributes["caller_name"]) == ("c-1", "+1555", "+1666", "Jane")


def test_the_debug_feed_tells_of_the_sessions_start_and_end() -> None:
    start = event({"call_info": INFO, "session_start": {}})
    assert (start.kind, start.call_id, start.attributes["project_id"]) == (CallKind.STARTED, "c-1", "p-1")
    end = event(
        {"call_info": INFO, "session_end": {"reason": "hard_timeout", "duration_ms": 37651, "ended_by": "system"}}
    )
    assert (end.kind, end.end_reason, end.attributes["ended_by"]) == (CallKind.ENDED, "hard_timeout", "system")


@pytest.mark.parametrize(
    "step",
    [
        {"startup_hook": {"duration_ms": 214, "success": True}},
        {"hangup_hook": {"duration_ms": 186, "success": True}},
        {"function_call": {"function": "get_weather", "duration_ms": 412}},
        {"attention_timeout": None},
        {"session_end": None},
        {"sidecar_event": {"type": "stop", "ts": 1745870400123456}},
        {},
    ],
)
def test_the_rest_of_the_debug_feed_is_ignored(step: Body) -> None:
    assert ignored({"call_info": INFO, **step}).what == "debug"


@pytest.mark.parametrize(
    "body",
    [
        {"function": "startup_hook", "argument": {}},
        {"action": "post_conversation", "conversation_type": "voice"},
        {"call_info": {"project_id": "p"}, "session_start": {}},
    ],
)
def test_a_hook_without_a_call_is_refused(body: Body) -> None:
    assert problem(body) == "swaig: call_id is missing, so the call is unknown"


def test_conversations_and_secrets_stay_out_of_the_attributes() -> None:
    text = event(sample("swaig/hangup_hook.json")).model_dump_json()
    assert "taxi" not in text
    assert "my-token" not in text
