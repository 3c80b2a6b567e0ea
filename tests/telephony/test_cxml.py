"""cXML: forms, lists, typed JSON; statuses, and callbacks that are no status."""

from urllib.parse import urlencode

import pytest

from schemas.calls import CallKind
from tests.telephony.shapes import Body, event, ignored, outcome, problem, sample

STATUS: Body = {
    "AccountSid": "acc",
    "CallSid": "c-1",
    "CallStatus": "ringing",
    "Direction": "inbound",
    "From": "+1555",
    "To": "+1666",
    "SequenceNumber": "1",
    "Timestamp": "Tue, 11 Mar 2025 12:03:04 +0000",
}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("queued", CallKind.STARTED),
        ("initiated", CallKind.STARTED),
        ("ringing", CallKind.PROGRESS),
        ("answered", CallKind.PROGRESS),
        ("in-progress", CallKind.PROGRESS),
        ("in_progress", CallKind.PROGRESS),
        ("completed", CallKind.ENDED),
        ("busy", CallKind.ENDED),
        ("no-answer", CallKind.ENDED),
        ("canceled", CallKind.ENDED),
        ("failed", CallKind.ENDED),
    ],
)
def test_the_status_decides_and_is_the_end_reason(status: str, kind: CallKind) -> None:
    got = event(urlencode({**STATUS, "CallStatus": status}).encode())
    assert got.kind is kind
    assert got.end_reason == (status if kind is CallKind.ENDED else None)


@pytest.mark.parametrize(
    ("word", "direction", "platform_direction"),
    [
        ("inbound", "inbound", None),
        ("outbound-api", "outbound", "outbound-api"),
        ("outbound-dial", "outbound", "outbound-dial"),
        ("trunking", None, "trunking"),
        ("", None, None),
    ],
)
def test_a_direction_is_ours_and_the_raw_word_an_attribute(
    word: str, direction: str | None, platform_direction: str | None
) -> None:
    got = event({**STATUS, "Direction": word})
    assert (got.direction, got.attributes.get("platform_direction")) == (direction, platform_direction)


def test_the_request_for_a_document_is_the_start_and_a_ringing_callback_is_not() -> None:
    request = sample("cxml/inbound_voice_request.json")
    assert event(request).kind is CallKind.STARTED
    assert event({**request, "CallbackSource": "call-progress-events"}).kind is CallKind.PROGRESS
    assert event({**request, "CallStatus": "in-progress", "Digits": "1"}).kind is CallKind.PROGRESS


@pytest.mark.parametrize("dial", ["completed", "busy", "no-answer", "failed", "answered"])
def test_a_dial_action_ends_nobody(dial: str) -> None:
    action = {"CallSid": "parent", "AccountSid": "acc", "DialCallSid": "child", "DialCallStatus": dial}
    assert ignored(urlencode(action).encode()).what == "dial action"
    assert ignored({**action, "CallStatus": "completed"}).what == "dial action"
    up = event({**action, "CallStatus": "in-progress"})
    assert (up.call_id, up.kind, up.attributes["dial_call_sid"]) == ("parent", CallKind.PROGRESS, "child")


@pytest.mark.parametrize("status", ["in-progress", "completed", "absent"])
def test_a_recordings_status_ends_nobody(status: str) -> None:
    body = {"AccountSid": "acc", "CallSid": "c-1", "RecordingSid": "r", "RecordingStatus": status}
    assert ignored(body).what == "recording status"
    assert ignored({**body, "CallStatus": "completed"}).what == "recording status"


def test_a_call_that_was_recorded_still_ends() -> None:
    assert (
        event({**STATUS, "CallStatus": "completed", "RecordingSid": "r", "RecordingUrl": "u"}).end_reason == "completed"
    )


@pytest.mark.parametrize(
    "body",
    [
        {"AccountSid": "acc", "MessageSid": "m", "MessageStatus": "delivered", "From": "+1", "To": "+2"},
        {"AccountSid": "acc", "SmsSid": "m", "SmsStatus": "sent"},
        {"AccountSid": "acc", "FaxSid": "f", "FaxStatus": "received"},
        {"CallSid": "c-1", "ConferenceSid": "cf", "StatusCallbackEvent": "participant-leave"},
        {"CallSid": "c-1", "AccountSid": "acc", "AnsweredBy": "machine"},
        {"CallSid": "c-1", "CallStatus": ""},
        {"CallSid": "c-1", "CallStatus": "parked"},
        {"CallSid": "c-1", "CallStatus": []},
    ],
)
def test_callbacks_without_a_call_status_are_ignored(body: Body) -> None:
    assert ignored(body).source == "cxml"


def test_a_status_without_a_call_is_refused() -> None:
    assert (
        problem({"CallStatus": "completed", "AccountSid": "acc"}) == "cxml: CallSid is missing, so the call is unknown"
    )
    assert problem(b"CallSid=&CallStatus=completed") == "cxml: CallSid is empty, so the call is unknown"


def test_a_twilio_sid_and_sip_uris_are_as_good() -> None:
    got = event({**STATUS, "CallSid": "CA" + "0" * 32, "From": "sip:a@x", "To": "client:bob"})
    assert (got.call_id, got.from_, got.to) == ("CA" + "0" * 32, "sip:a@x", "client:bob")


def test_custom_sip_headers_are_attributes() -> None:
    got = event(urlencode({**STATUS, "SipHeader_X-Tenant": "acme", "HangupBy": "caller"}).encode())
    assert (got.attributes["sip_header_x-tenant"], got.attributes["hangup_by"]) == ("acme", "caller")


def test_escapes_that_are_not_utf8_do_not_lose_the_call() -> None:
    got = event(b"CallSid=c-1&CallStatus=completed&CallerName=Jos%E9")
    assert (got.call_id, got.attributes["caller_name"]) == ("c-1", "Jos\N{REPLACEMENT CHARACTER}")


def test_a_field_that_comes_twice_keeps_its_last_value() -> None:
    assert event(b"CallSid=c-1&CallStatus=ringing&CallStatus=completed").kind is CallKind.ENDED
    assert event({"CallSid": ["c-1"], "CallStatus": ["ringing", "completed"]}).kind is CallKind.ENDED


@pytest.mark.parametrize(
    "stamp", ["yesterday", "", "Tue, 99 Mar 2025 12:03:04 +0000", "Thu, 01 Jan 1970 00:00:00 -0000"]
)
def test_an_absurd_time_is_none(stamp: str) -> None:
    assert event({**STATUS, "Timestamp": stamp}).occurred_at is None


def test_a_time_may_be_iso_where_json_is_typed() -> None:
    assert event({**STATUS, "Timestamp": "2025-03-11T12:03:04Z"}).occurred_at == event(STATUS).occurred_at


def test_typed_json_and_text_are_the_same_event() -> None:
    typed = {**STATUS, "SequenceNumber": 1, "CallStatus": "completed", "CallDuration": 94}
    assert outcome(typed) == outcome({**typed, "SequenceNumber": "1", "CallDuration": "94"})
