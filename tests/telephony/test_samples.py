"""Every sample becomes what the manifest says, and every sequence opens and closes what it should."""

import json
from datetime import datetime
from urllib.parse import parse_qs

import pytest

from consumer.telephony import Ignored, Translated
from schemas.calls import CallKind, normal_reason
from tests.telephony.shapes import SAMPLES, Body, event, manifest, outcome, problem, raw, rejects, sample, sequences

KINDS = {
    "start": {CallKind.STARTED},
    "progress": {CallKind.PROGRESS},
    "ending": {CallKind.PROGRESS, CallKind.ENDED},
    "end": {CallKind.ENDED},
}
WHOLE = ("relay", "swml_status", "freeswitch_amqp", "kazoo", "wazo", "telnyx", "jambonz")
"""Platforms whose samples all name both parties."""
LINES = [pytest.param(line, id=line["file"]) for line in manifest()]
CALLS = [pytest.param(line, id=line["file"]) for line in manifest() if line["action"] != "none"]
RELAY = [pytest.param(line, id=line["file"]) for line in manifest() if line["source"] == "relay"]
NAMING = [
    pytest.param(line, id=line["file"])
    for line in manifest()
    if line["action"] != "none" and line["source"] in WHOLE and "missing" not in line
]
FORMS = sorted(str(path.relative_to(SAMPLES)) for path in SAMPLES.glob("*/*.form.txt"))


def check(line: Body, body: bytes) -> None:
    found = outcome(body, platform=line.get("platform"))
    if line["action"] == "none":
        assert isinstance(found, Ignored)
        assert found.source == line["source"]
        return
    assert isinstance(found, Translated)
    got = found.event
    assert got.kind in KINDS[line["action"]]
    assert got.call_id == line["call_id"]
    assert got.source == line["source"]
    if "end_reason" in line:
        assert normal_reason(got.end_reason or "") == normal_reason(line["end_reason"])
    for name, value in (
        ("direction", got.direction),
        ("from", got.from_),
        ("to", got.to),
        ("tag", got.attributes.get("tag")),
        ("call_state", got.attributes.get("call_state")),
    ):
        assert value == line.get(name, value)
    for name, value in (("from", got.from_), ("to", got.to)):
        assert value in line.get(f"{name}_any_of", [value])
        assert value is None or name not in line.get("missing", [])
    if "occurred_at" in line:
        assert got.occurred_at == datetime.fromisoformat(line["occurred_at"])
    if line.get("leg") == "child":
        assert got.parent_call_id == line["related_call_id"]


@pytest.mark.parametrize("line", LINES)
def test_a_sample_becomes_what_the_manifest_says(line: Body) -> None:
    check(line, raw(line["file"]))


@pytest.mark.parametrize("line", LINES)
def test_amqp_properties_change_nothing(line: Body) -> None:
    amqp = line.get("amqp", {})
    context = {name: amqp.get(name) for name in ("content_type", "headers", "routing_key")}
    assert outcome(raw(line["file"]), **context) == outcome(raw(line["file"]))


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize(
    "content_type", ["text/json", "application/x-www-form-urlencoded", "text/plain; charset=utf-8"]
)
def test_a_wrong_content_type_does_no_harm(line: Body, content_type: str) -> None:
    assert outcome(raw(line["file"]), content_type=content_type) == outcome(raw(line["file"]))


def test_every_sample_is_in_the_manifest() -> None:
    files = {str(path.relative_to(SAMPLES)) for path in SAMPLES.glob("*/*.json")}
    assert files == {line["file"] for line in [*manifest(), *rejects()]}


@pytest.mark.parametrize("line", rejects(), ids=lambda line: line["file"])
def test_a_body_whose_call_cannot_be_known_says_what_is_missing(line: Body) -> None:
    said = problem(raw(line["file"]))
    assert said.startswith(f"{line['source']}: ")
    assert line["problem"] in said


@pytest.mark.parametrize("line", CALLS)
def test_no_call_has_a_party_that_its_sample_does_not_name(line: Body) -> None:
    body = raw(line["file"]).decode()
    got = event(body.encode(), platform=line.get("platform"))
    assert got.from_ is None or got.from_ in body
    assert got.to is None or got.to in body


@pytest.mark.parametrize("line", NAMING)
def test_both_parties_are_found_where_a_platform_names_them(line: Body) -> None:
    got = event(raw(line["file"]), platform=line.get("platform"))
    assert got.from_ is not None
    assert got.to is not None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "content_type",
    [None, "application/x-www-form-urlencoded", "Application/X-WWW-Form-URLencoded; charset=UTF-8", "application/json"],
)
def test_a_form_says_what_its_json_says(form: str, content_type: str | None) -> None:
    assert event(raw(form), content_type=content_type) == event(raw(form.replace(".form.txt", ".json")))


@pytest.mark.parametrize("form", FORMS)
def test_a_form_with_a_line_end_or_as_a_query_is_the_same(form: str) -> None:
    body = raw(form)
    assert event(body + b"\r\n") == event(b"?" + body.strip()) == event(body)


@pytest.mark.parametrize("form", FORMS)
def test_the_lists_of_parse_qs_say_what_the_form_says(form: str) -> None:
    assert event(parse_qs(raw(form).decode().strip())) == event(raw(form))


@pytest.mark.parametrize("line", RELAY)
def test_a_bridge_may_forward_bare_params(line: Body) -> None:
    check(line, json.dumps(sample(line["file"])["params"]).encode())
    assert outcome(sample(line["file"])["params"]) == outcome(raw(line["file"]))


@pytest.mark.parametrize("line", RELAY)
@pytest.mark.parametrize("name", ["queuing.relay.events", "relay"])
def test_a_legacy_broadcast_is_one_level_deeper(line: Body, name: str) -> None:
    broadcast = {
        "broadcaster_nodeid": "9811eb32",
        "protocol": "signalwire_service_random_uuid",
        "channel": "notifications",
        "event": name,
        "params": sample(line["file"])["params"],
    }
    frame = {"jsonrpc": "2.0", "id": "a16dae67", "method": "blade.broadcast", "params": broadcast}
    assert outcome(frame) == outcome(broadcast) == outcome(raw(line["file"]))


@pytest.mark.parametrize("line", RELAY)
def test_inner_params_are_enough_with_their_event_type(line: Body) -> None:
    envelope = sample(line["file"])["params"]
    inner = {"event_type": envelope["event_type"], **envelope["params"]}
    check(line, json.dumps(inner).encode())


@pytest.mark.parametrize("sequence", sequences(), ids=lambda sequence: sequence["name"])
def test_a_sequence_opens_and_closes_as_often_as_it_should(sequence: Body) -> None:
    live: set[str] = set()
    ended: set[str] = set()
    opened = closed = 0
    for file in sequence["deliver"]:
        found = outcome(raw(file))
        if not isinstance(found, Translated):
            continue
        call = found.event.call_id
        if found.event.kind is CallKind.ENDED:
            closed += call in live
            live.discard(call)
            ended.add(call)
        elif call not in live and call not in ended:
            opened += 1
            live.add(call)
    net = sequence["net"]
    assert str(opened) in str(net["opened"])
    assert closed == (opened if net["closed"] == "as opened" else net["closed"])
    assert len(live) == opened - closed
