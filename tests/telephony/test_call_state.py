"""How far a call is, in one word for all platforms that tell it."""

import pytest

from schemas.calls import CALL_STATE, CallEvent, CallId, CallKind
from tests.telephony.shapes import event, manifest, raw, sample

WAITING = {"created", "ringing"}
ALREADY_UP = {"asterisk", "daily", "livekit", "retell"}
"""Platforms that may hear of a call when it has been answered."""
RELAY = {"state_created_outbound": "created", "state_ringing_outbound": "ringing", "state_answered_inbound": "answered"}


def state(body: object) -> object:
    return event(body).attributes.get(CALL_STATE)


@pytest.mark.parametrize(("name", "told"), RELAY.items())
def test_relay_tells_it(name: str, told: str) -> None:
    assert state(sample(f"relay/{name}.json")) == told


@pytest.mark.parametrize("name", ["receive_created_phone", "receive_created_minimal"])
def test_a_call_that_was_received_is_new(name: str) -> None:
    assert state(sample(f"relay/{name}.json")) == "created"


def test_a_dial_that_was_answered_is_answered_whatever_its_call_says() -> None:
    assert state(sample("relay/dial_answered.json")) == "answered"


@pytest.mark.parametrize(("word", "told"), [("queued", "created"), ("initiated", "created"), ("ringing", "ringing")])
def test_words_of_a_rest_dial(word: str, told: str) -> None:
    body = sample("swml_status/flat_answered.json") | {"call_state": word}
    assert state(body) == told
    assert not event(body).is_answered


@pytest.mark.parametrize(
    ("status", "told"),
    [("queued", "created"), ("initiated", "created"), ("ringing", "ringing"), ("in-progress", "answered")],
)
def test_cxml_tells_it(status: str, told: str) -> None:
    assert state({"CallSid": "c", "CallStatus": status, "From": "+1", "To": "+2"}) == told


@pytest.mark.parametrize(("name", "told"), [("CHANNEL_CREATE", "created"), ("CHANNEL_ANSWER", "answered")])
def test_freeswitch_and_kazoo_tell_it(name: str, told: str) -> None:
    assert state({"Event-Name": name, "Unique-ID": "c"}) == told
    assert state({"Event-Name": name, "Event-Category": "call_event", "Call-ID": "c"}) == told


@pytest.mark.parametrize(("name", "told"), [("call_created", "created"), ("call_answered", "answered")])
def test_wazo_tells_it(name: str, told: str) -> None:
    assert state({"name": name, "data": {"call_id": "c"}, "origin_uuid": "o"}) == told


@pytest.mark.parametrize("line", [line for line in manifest() if line["action"] in ("start", "progress")])
def test_what_a_sample_says_of_its_state_fits_its_kind(line: dict[str, str]) -> None:
    found = event(raw(line["file"]), platform=line.get("platform"))
    told = found.attributes.get(CALL_STATE)
    assert told in {None, *WAITING, "answered", "ending"}
    if found.kind is CallKind.STARTED and told is not None:
        assert told in WAITING or line["source"] in ALREADY_UP
    assert found.is_answered == (told in (None, "answered"))


@pytest.mark.parametrize(
    ("said", "answered"),
    [({}, True), ({"call_state": "Ringing"}, False), ({"call_state": "ending"}, False), ({"call_state": "up"}, True)],
)
def test_only_who_says_that_it_rings_waits(said: dict[str, str], answered: bool) -> None:
    assert CallEvent(call_id=CallId("c"), kind=CallKind.STARTED, attributes=said).is_answered is answered


@pytest.mark.parametrize(
    ("status", "told"), [("active", "answered"), ("dialing", None), ("ringing", None), (None, None)]
)
def test_of_livekit_only_the_answer_is_told_because_nothing_would_correct_the_rest(status: str, told: str) -> None:
    body = sample("livekit/joined_outbound_dialing.json")
    body["participant"]["attributes"]["sip.callStatus"] = status
    assert state(body) == told
    assert event(body).is_answered
