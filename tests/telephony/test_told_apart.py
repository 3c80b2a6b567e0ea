"""Each body has one sender, or none; who wraps it, mixes two or nearly has a shape is told what to do."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.telephony import PLATFORMS, SOURCES, Translated, Unrecognised, looks
from consumer.telephony.decode import decode
from consumer.telephony.registry import TRANSLATORS, recognisers
from schemas.calls import Platform
from tests.telephony.shapes import SAMPLES, Body, event, manifest, outcome, problem, raw, rejects, sample
from tests.telephony.test_never_raises import MODERATE, VALUES

LINES = [*manifest(), *rejects()]
FILES = [line["file"] for line in LINES]
FORMS = sorted(str(path.relative_to(SAMPLES)) for path in SAMPLES.glob("*/*.form.txt"))
SENDERS = {line["file"]: line["source"] for line in LINES}

CELERY = {"task": "calls.take", "id": "5f0e", "args": [], "kwargs": {}, "retries": 0}
EVENTBRIDGE = {"version": "0", "id": "6a7e", "detail-type": "call", "source": "bridge", "time": "2026-03-02T10:00:00Z"}
CLOUD_EVENT = {"specversion": "1.0", "id": "a1", "type": "org.example.call", "source": "/bridge"}
MASS_TRANSIT = {"messageId": "9c", "messageType": ["urn:message:Call"], "headers": {}}
WRAPPERS: dict[str, tuple[Body, str]] = {
    "celery": (CELERY, "kwargs"),
    "eventbridge": (EVENTBRIDGE, "detail"),
    "cloudevents": (CLOUD_EVENT, "data"),
    "masstransit": (MASS_TRANSIT, "message"),
    "pubsub": ({"subscription": "s"}, "message"),
    "http bridge": ({"headers": {"content-type": "application/json"}, "method": "POST"}, "body"),
    "queue": ({"id": "e-1", "type": "call.event", "created_at": 1793060000}, "data"),
    "socket": ({"event": "call", "channel": "private-calls"}, "data"),
    "outbox": ({"version": 1, "type": "call", "event_ts": 1793060000.5}, "payload"),
    "bare": ({}, "event"),
}
NESTED = ["relay/state_ended_hangup.json", "twilio/completed.json", "telnyx/hangup.json", "vonage/completed.json",
          "plivo/hangup.json", "jambonz/status_completed.json", "livekit/left_inbound.json", "vapi/ended_inbound.json",
          "retell/call_ended_user_hangup.json", "daily/dialin_stopped.json", "elevenlabs/post_call_inbound.json",
          "openai/realtime_incoming.json", "asterisk_ari/channel_destroyed.json", "asterisk_ami/hangup.json",
          "freeswitch_amqp/CHANNEL_DESTROY_b_leg.json", "kazoo/CHANNEL_DESTROY.json"]  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_a_sample_is_recognised_by_its_sender_and_nobody_else(file: str) -> None:
    assert [one.SOURCE for one in recognisers(sample(file))] == [SENDERS[file]]


@pytest.mark.parametrize("file", FORMS)
def test_so_is_a_form(file: str) -> None:
    source = SENDERS[file.replace(".form.txt", ".json")]
    assert [one.SOURCE for one in recognisers(decode(raw(file)))] == [source]


@given(st.sampled_from(FILES), st.sampled_from(FILES))
@MODERATE
def test_two_bodies_in_one_are_never_taken_for_either_alone_when_both_are_known(one: str, other: str) -> None:
    mixed = {**sample(one), **sample(other)}
    known = recognisers(mixed)
    found = outcome(mixed)
    if len(known) > 1:
        assert isinstance(found, Unrecognised)
        assert all(translator.SOURCE in found.problem for translator in known)
    elif isinstance(found, Translated):
        assert found.event.source in (known[0].SOURCE, "custom")


@given(st.sampled_from(FILES), st.dictionaries(st.text(max_size=12), VALUES, max_size=4))
@MODERATE
def test_fields_that_nobody_knows_change_nobodys_mind(file: str, more: Body) -> None:
    known = {key for translator in TRANSLATORS for shape in translator.SHAPES for mark in shape for key in mark.keys}
    strange = {name: value for name, value in more.items() if name not in known and name not in sample(file)}
    sources = [one.SOURCE for one in recognisers({**strange, **sample(file)})]
    assert sources == ([] if strange and SENDERS[file] == "vapi" else [SENDERS[file]])


@pytest.mark.parametrize("file", NESTED)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_an_envelope_is_a_dead_letter_and_says_in_which_field_the_event_is(file: str, wrapper: str) -> None:
    around, field = WRAPPERS[wrapper]
    said = problem({**around, field: sample(file)})
    assert f"{field!r} holds an event of {SENDERS[file]}: send that alone" in said


def test_an_event_in_quotes_inside_an_envelope_is_found_too() -> None:
    said = problem({"Type": "Notification", "MessageId": "m", "Message": raw("telnyx/hangup.json").decode()})
    assert "'Message' holds an event of telnyx: send that alone" in said


@pytest.mark.parametrize(
    "body",
    [
        {"id": "evt_1", "object": "event", "type": "charge.succeeded", "created": 1793060000, "data": {"object": {}}},
        {"id": "x", "type": "user.created", "created_at": 1793060000, "data": {}},
        {"type": "message", "channel": "C024BE91L", "user": "U2147483697", "text": "Hello"},
        {"type": "OrderCreated", "application": "shop", "timestamp": "2026-03-02T10:00:00Z"},
        {"event": "subscribe", "channel": "calls", "data": {}},
        {"message": {"type": "text", "text": "Hello"}},
        {"event": "call_started", "id": 7},
        {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "x"}, "id": 1},
        {"call": {"call_id": "c-1"}},
        {"call": {"call_id": "c-1", "agent_id": "a", "direction": "inbound"}},
    ],
)
def test_what_only_looks_familiar_is_nobodys(body: Body) -> None:
    assert "no known platform" in problem(body)


@pytest.mark.parametrize(
    ("file", "lost", "said"),
    [
        ("telnyx/hangup.json", ("data", "record_type"), "nearly telnyx"),
        ("daily/dialin_stopped.json", ("version",), "nearly daily: it has no 'version'"),
        ("openai/realtime_incoming.json", ("created_at",), "nearly openai: 'created_at' is not a number"),
        (
            "elevenlabs/post_call_inbound.json",
            ("event_timestamp",),
            "nearly elevenlabs: 'event_timestamp' is not a number",
        ),
        (
            "retell/call_started_inbound.json",
            ("call",),
            "nearly retell: 'call', 'call_inbound', 'chat' are not objects",
        ),
        ("asterisk_cel/hangup.json", ("linked_id",), "nearly asterisk: it has no 'linked_id'"),
    ],
)
def test_a_body_that_nearly_fits_is_told_what_it_lacks(file: str, lost: tuple[str, ...], said: str) -> None:
    body = sample(file)
    *path, last = lost
    place = body
    for name in path:
        place = place[name]
    del place[last]
    if file.startswith("telnyx"):
        body = body["data"]
    assert said in problem(body)


def test_every_translator_says_what_it_thinks_of_a_body() -> None:
    found = looks(raw("telnyx/hangup.json"))
    assert {look.source for look in found} == SOURCES
    assert [look.source for look in found if look.refused is None] == ["telnyx"]
    assert found[0].source == "telnyx"
    assert all(look.refused for look in found[1:])


def test_a_body_that_cannot_be_read_is_looked_at_by_nobody() -> None:
    assert looks(b"{") == []


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_platform_that_is_named_takes_its_own_events_only(platform: Platform) -> None:
    for file, source in SENDERS.items():
        found = outcome(raw(file), platform=platform)
        if source not in PLATFORMS[platform]:
            assert isinstance(found, Unrecognised), file


def test_the_refusal_names_the_platform_and_who_would_have_taken_it() -> None:
    said = problem(raw("telnyx/hangup.json"), platform="vonage")
    assert said.startswith("vonage sends no object with these fields: 'data', 'meta'")


def test_every_translator_belongs_to_a_platform_but_our_own() -> None:
    assert set().union(*PLATFORMS.values()) == SOURCES - {"custom"}


def test_a_mark_that_begins_a_shape_has_the_fields_by_which_it_is_found() -> None:
    assert all(shape[0].keys for translator in TRANSLATORS for shape in translator.SHAPES)


@pytest.mark.parametrize("name", ["ARI", "AMI"])
def test_asterisks_wrapped_events_are_its_own_where_their_exchange_is(name: str) -> None:
    wrapped = {"ARI": "asterisk_ari/amqp_channel_destroyed.json", "AMI": "asterisk_ami/amqp_hangup.json"}[name]
    body = sample(wrapped)
    assert event(body, platform="asterisk") == event(body["data"]) == event(body["data"], platform="asterisk")
    assert not isinstance(outcome(json.dumps(body).encode()), Translated)
