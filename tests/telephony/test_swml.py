"""SWML: status callbacks in two forms, and the fetch of a document."""

import pytest

from schemas.calls import CallKind
from tests.telephony.shapes import Body, event, ignored, problem, sample


def fetch(**call: object) -> Body:
    return {"call": {"call_id": "c-1", "direction": "inbound", **call}, "vars": {}, "envs": {}, "params": {}}


def test_the_event_channel_tells_a_status_callback_from_relay() -> None:
    body = sample("swml_status/answered.json")
    assert event(body).source == "swml_status"
    assert event({**body, "event_channel": "signalwire_x"}).source == "relay"
    assert event({"jsonrpc": "2.0", "method": "signalwire.event", "params": body}).source == "swml_status"


def test_an_end_reason_that_is_null_while_the_call_is_up_is_none() -> None:
    assert event(sample("swml_status/answered.json")).end_reason is None


@pytest.mark.parametrize("event_type", ["calling.call.connect", "calling.call.stream", "calling.call.record"])
def test_the_status_of_a_verb_is_not_the_calls(event_type: str) -> None:
    body = {**sample("swml_status/connect_failed.json"), "event_type": event_type}
    assert ignored(body).source == "swml_status"


@pytest.mark.parametrize(
    ("call_state", "kind"),
    [
        ("created", CallKind.STARTED),
        ("queued", CallKind.STARTED),
        ("initiated", CallKind.STARTED),
        ("ringing", CallKind.PROGRESS),
        ("answered", CallKind.PROGRESS),
        ("ending", CallKind.PROGRESS),
        ("ended", CallKind.ENDED),
    ],
)
def test_the_flat_status_knows_the_states_of_the_rest_dial(call_state: str, kind: CallKind) -> None:
    body = {**sample("swml_status/flat_answered.json"), "call_state": call_state}
    assert (event(body).kind, event(body).source) == (kind, "swml_status")


def test_the_flat_status_may_come_as_a_form() -> None:
    got = event(b"call_id=c-1&call_state=ended&from=%2B1555&to=%2B1666&direction=outbound&end_reason=hangup")
    assert (got.kind, got.from_, got.to, got.end_reason) == (CallKind.ENDED, "+1555", "+1666", "hangup")


@pytest.mark.parametrize(
    ("call_state", "kind"),
    [
        ("created", CallKind.STARTED),
        ("ringing", CallKind.STARTED),
        (None, CallKind.STARTED),
        ("whatever", CallKind.STARTED),
        ("answered", CallKind.PROGRESS),
        ("ended", CallKind.ENDED),
    ],
)
def test_a_document_fetch_is_the_start_unless_the_call_is_further_on(call_state: object, kind: CallKind) -> None:
    assert event(fetch(call_state=call_state)).kind is kind


def test_a_fetch_of_a_sip_call_has_its_uris_parent_peer_and_headers() -> None:
    got = event(
        fetch(
            type="sip",
            tag="support",
            **{"from": "sip:user@example.com", "to": "sip:destination@yourdomain.com"},
            headers=[{"name": "X-Custom-Header", "value": "custom-value"}],
            parent={"device_type": "phone", "call_id": "a-leg", "node_id": "n"},
            peer={"call_id": "b-leg", "node_id": "n"},
            sip_data={"sip_req_user": "destination"},
        )
    )
    assert (got.from_, got.to) == ("sip:user@example.com", "sip:destination@yourdomain.com")
    assert (got.parent_call_id, got.attributes["peer_call_id"]) == ("a-leg", "b-leg")
    assert got.attributes["sip_header_x-custom-header"] == "custom-value"
    assert (got.attributes["device_type"], got.attributes["tag"]) == ("sip", "support")


def test_what_a_script_passes_on_does_not_change_what_a_fetch_is() -> None:
    body = {**fetch(call_state="created"), "params": {"event_type": "calling.call.state", "call_state": "ended"}}
    assert event(body).kind is CallKind.STARTED


def test_secrets_of_a_fetch_stay_out_of_the_attributes() -> None:
    body = {**fetch(call_state="created"), "envs": {"api_key": "secret-1"}, "vars": {"pin": "secret-2"}}
    assert "secret" not in event(body).model_dump_json()


def test_a_message_that_fetches_a_document_is_no_call() -> None:
    body = {"message": {"message_id": "m-1", "direction": "inbound", "type": "sms"}, "params": {}}
    assert ignored(body).what == "message"


def test_a_leg_that_the_field_reported_has_its_own_id_and_ends_by_timeout() -> None:
    inner = {
        "call_id": "forward",
        "segment_id": "forward",
        "call_state": "ended",
        "direction": "outbound",
        "parent": {"call_id": "inbound", "node_id": "n", "device_type": "phone"},
        "start_time": 1741700000123,
        "end_time": 1741700066002,
        "end_reason": "timeout",
    }
    got = event({"event_type": "calling.call.state", "event_channel": "swml:x", "params": inner})
    assert (got.call_id, got.parent_call_id, got.end_reason) == ("forward", "inbound", "timeout")
    assert got.occurred_at is not None
    assert got.occurred_at.isoformat() == "2025-03-11T13:34:26.002000+00:00"


def test_a_state_may_stand_under_a_call_in_the_params() -> None:
    body = {
        "event_type": "calling.call.state",
        "event_channel": "swml:x",
        "params": {"call": {"call_id": "c-1", "call_state": "ended"}},
    }
    assert (event(body).call_id, event(body).kind) == ("c-1", CallKind.ENDED)


def test_a_fetch_without_a_call_id_is_said_to_lack_it() -> None:
    assert problem({"call": {"call_state": "created"}}) == "swml_status: call_id is missing, so the call is unknown"
