"""What the samples of the hosted platforms and of Asterisk do not have: the traps of each."""

from typing import Any

import pytest

from schemas.calls import CallKind
from tests.telephony.shapes import Body, event, ignored, problem, sample

STARTED, PROGRESS, ENDED = CallKind.STARTED, CallKind.PROGRESS, CallKind.ENDED


def changed(file: str, *path: str, **values: Any) -> Body:
    """A sample with other values in the object at ``path``; None takes a field away."""
    body = sample(file)
    place = body
    for name in path:
        place = place[name]
    for name, value in values.items():
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
    return body


@pytest.mark.parametrize("name", ["Event", "event", "EVENT"])
def test_names_and_values_of_ami_have_no_case(name: str) -> None:
    body = {name: "hangup", "UNIQUEID": "1.2", "linkedID": "1.1", "CAUSE": 16}
    got = event(body)
    assert (got.kind, got.call_id, got.parent_call_id, got.end_reason) == (ENDED, "1.2", "1.1", "16")


@pytest.mark.parametrize("name", ["SoftHangupRequest", "DialEnd", "VarSet", "Cdr", "BridgeEnter"])
def test_other_events_of_ami_are_ignored(name: str) -> None:
    assert ignored({"Event": name, "Uniqueid": "1.2"}).what == name


def test_an_id_of_ami_that_became_a_number_is_refused() -> None:
    assert "a number with a fraction" in problem({"Event": "Hangup", "Uniqueid": 1772450100.31})


def test_the_second_end_of_a_channel_in_cel_has_no_reason() -> None:
    got = event(changed("asterisk_cel/hangup.json", event_name="CHAN_END", extra=None))
    assert (got.kind, got.end_reason) == (ENDED, None)


def test_a_channel_that_leaves_the_application_has_not_ended() -> None:
    assert event(sample("asterisk_ari/stasis_end.json")).kind is PROGRESS


@pytest.mark.parametrize("name", ["ChannelHangupRequest", "ChannelDialplan", "BridgeCreated", "PlaybackStarted"])
def test_other_events_of_ari_are_ignored(name: str) -> None:
    assert ignored(changed("asterisk_ari/dtmf.json", type=name)).what == name


@pytest.mark.parametrize(
    ("status", "kind"), [("initiated", STARTED), ("ringing", PROGRESS), ("answered", PROGRESS), ("completed", ENDED)]
)
def test_an_event_stream_without_parameters_is_read_by_its_type(status: str, kind: CallKind) -> None:
    body = {
        "specversion": "1.0",
        "type": f"com.twilio.voice.webhook.status-callback.call.{status}",
        "data": {"sid": "CA1", "request": {"parameters": {"CallStatus": "", "CallSid": ""}}},
    }
    assert (event(body).kind, event(body).call_id) == (kind, "CA1")


def test_a_status_that_is_not_called_call_status_becomes_a_dead_letter_and_is_not_ignored() -> None:
    assert "no CallStatus" in problem(b"CallSid=c-1&Status=completed&From=1&To=2")


@pytest.mark.parametrize("missing", [None, ""])
def test_a_leg_of_telnyx_without_a_control_id_is_known_by_its_leg_id(missing: str | None) -> None:
    body = changed("telnyx/hangup.json", "data", "payload", call_control_id=missing)
    assert event(body).call_id == "0fd34901-faa9-133f-be33-344f0f4b4a2c"


@pytest.mark.parametrize("field", ["type", "recording_url", "dtmf", "payload", "reason"])
def test_a_webhook_of_vonage_that_is_no_status_is_ignored(field: str) -> None:
    assert ignored(changed("vonage/completed.json", **{field: "x"})).source == "vonage"


def test_a_client_of_vonage_has_a_name_and_no_number() -> None:
    body = changed("vonage/started_inbound.json", **{"from": None}, from_user="alice")
    assert event(body).from_ == "alice"


def test_a_dialled_leg_of_plivo_ends_and_one_that_never_was_does_not() -> None:
    body = changed("plivo/dial_callback_answer.json", DialAction="hangup", Event="DialHangup")
    got = event(body)
    assert (got.kind, got.call_id) == (ENDED, "cbf354c7-4bcb-4b62-a9f8-914534c7979b")
    assert ignored(body | {"DialBLegUUID": ""}).what == "dial hangup"
    assert ignored(body | {"DialAction": "digits"}).what == "dial digits"


def test_times_of_plivo_that_may_be_of_any_zone_are_not_believed() -> None:
    assert event(sample("plivo/hangup.json")).occurred_at is None
    assert event(sample("plivo/inbound_answer_url.json")).occurred_at is not None


def test_the_outbound_request_for_the_xml_is_no_start() -> None:
    assert event(changed("plivo/ring.json", Event="StartApp", CallStatus="in-progress")).kind is PROGRESS


@pytest.mark.parametrize(
    ("frame", "status", "kind"),
    [
        ("call:status", "completed", ENDED),
        ("session:reconnect", "in-progress", PROGRESS),
        ("session:new", None, STARTED),
    ],
)
def test_a_frame_of_jambonz_is_judged_by_the_calls_status(frame: str, status: str | None, kind: CallKind) -> None:
    body = changed("jambonz/ws_session_new.json", "data", call_status=status)
    assert event(body | {"type": frame}).kind is kind


@pytest.mark.parametrize("frame", ["verb:status", "jambonz:error"])
def test_frames_of_jambonz_that_tell_of_a_verb_are_ignored(frame: str) -> None:
    assert ignored(sample("jambonz/ws_verb_hook.json") | {"type": frame}).source == "jambonz"


@pytest.mark.parametrize("kind", ["SIP", 3])
def test_a_telephone_in_a_room_is_known_by_name_or_number(kind: object) -> None:
    assert event(changed("livekit/joined_inbound.json", "participant", kind=kind)).kind is STARTED


@pytest.mark.parametrize("kind", [None, "AGENT", "INGRESS", 0, 4])
def test_whoever_else_is_in_a_room_is_no_call(kind: object) -> None:
    assert ignored(changed("livekit/joined_inbound.json", "participant", kind=kind)).source == "livekit"


def test_a_leg_that_never_connected_ends_in_livekit() -> None:
    assert event(changed("livekit/left_inbound.json", event="participant_connection_aborted")).kind is ENDED


@pytest.mark.parametrize(
    "name", ["hang", "transcript", "transcript[transcriptType='final']", "conversation-update", "call.deleted"]
)
def test_a_message_of_vapi_that_says_nothing_of_the_calls_life_is_ignored(name: str) -> None:
    assert ignored(changed("vapi/ended_inbound.json", "message", type=name)).source == "vapi"


@pytest.mark.parametrize("status", ["scheduled", "not-found", "deletion-failed"])
def test_a_status_of_vapi_that_is_no_calls_is_ignored(status: str) -> None:
    assert ignored(changed("vapi/ended_inbound.json", "message", status=status)).what == f"status-update {status}"


def test_the_report_of_vapi_is_a_second_end_with_a_time_of_its_own() -> None:
    body = changed("vapi/ended_inbound.json", "message", type="end-of-call-report", endedAt="2026-10-26T10:21:14.000Z")
    got = event(body)
    assert (got.kind, got.end_reason) == (ENDED, "customer-ended-call")
    assert got.occurred_at is not None
    assert got.occurred_at.isoformat() == "2026-10-26T10:21:14+00:00"


@pytest.mark.parametrize("name", ["call_ended", "call_analyzed"])
def test_no_end_of_retell_is_taken_for_a_document_fetch(name: str) -> None:
    got = event(changed("retell/call_ended_user_hangup.json", event=name))
    assert (got.source, got.kind) == ("retell", ENDED)


def test_a_custom_function_of_retell_says_that_the_call_is_up() -> None:
    call = sample("retell/call_started_inbound.json")["call"]
    got = event({"name": "lookup", "args": {}, "call": call})
    assert (got.source, got.kind) == ("retell", PROGRESS)


@pytest.mark.parametrize("name", ["transfer_ended", "transcript_updated", "call_inbound"])
def test_what_comes_after_the_end_of_retell_or_before_its_id_opens_nothing(name: str) -> None:
    assert ignored(changed("retell/call_ended_transfer.json", event=name)).what == name


@pytest.mark.parametrize("body", [{"test": "test"}, {"From": "+1", "To": "+2", "callId": "c", "callDomain": "d"}])
def test_tests_and_pinless_requests_of_daily_are_no_calls(body: Body) -> None:
    assert ignored(body).source == "daily"


def test_a_dial_in_of_daily_ends_by_an_error_too() -> None:
    body = changed("daily/dialout_error_busy.json", type="dialin.error")
    assert (event(body).kind, event(body).direction, event(body).end_reason) == (ENDED, "inbound", "busy")


@pytest.mark.parametrize("file", ["post_call_inbound", "post_call_sip_trunk"])
def test_a_report_of_elevenlabs_without_its_telephone_is_found_by_its_variables(file: str) -> None:
    body = changed(f"elevenlabs/{file}.json", "data", "metadata", phone_call={})
    body["data"]["conversation_initiation_client_data"] = {"dynamic_variables": {"system__call_sid": "CA9"}}
    assert event(body).call_id == "CA9"


def test_the_audio_of_elevenlabs_is_ignored() -> None:
    assert ignored(changed("elevenlabs/post_call_inbound.json", type="post_call_audio")).what == "post_call_audio"


def test_both_ids_of_one_invite_have_the_same_sip_call_id() -> None:
    realtime, live = sample("openai/realtime_incoming.json"), sample("openai/live_transport_incoming.json")
    live["data"]["sip_headers"] = realtime["data"]["sip_headers"]
    first, second = event(realtime), event(live)
    assert first.call_id != second.call_id
    assert first.attributes["sip_call_id"] == second.attributes["sip_call_id"]


def test_the_parties_of_openai_are_uris_without_names_and_tags() -> None:
    got = event(sample("openai/live_transport_incoming.json"))
    assert got.from_ == "sip:+15550701002@pstn.example.com"
    assert got.to == "sip:proj_xvbFZPNkH3jSvADzQVVE@sip.api.example.com;transport=tls"
