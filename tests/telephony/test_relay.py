"""RELAY: frames, dials, device types, and what is not a call's state."""

import pytest

from schemas.calls import CallKind
from tests.telephony.shapes import Body, event, ignored, problem, sample


def state(call_state: object = "answered", **inner: object) -> Body:
    params = {"call_id": "c-1", "call_state": call_state, "direction": "inbound", **inner}
    return {"event_type": "calling.call.state", "timestamp": 1741694585.5, "project_id": "p-1", "params": params}


@pytest.mark.parametrize(
    ("call_state", "kind"),
    [
        ("created", CallKind.STARTED),
        ("ringing", CallKind.PROGRESS),
        ("answered", CallKind.PROGRESS),
        ("ending", CallKind.PROGRESS),
        ("ended", CallKind.ENDED),
        ("ENDED", CallKind.ENDED),
    ],
)
def test_the_call_state_decides(call_state: str, kind: CallKind) -> None:
    assert event(state(call_state)).kind is kind


def test_an_ended_without_a_reason_is_an_end_without_a_reason() -> None:
    got = event(state("ended"))
    assert (got.kind, got.end_reason) == (CallKind.ENDED, None)


def test_a_reason_that_comes_while_the_call_is_up_is_no_end_reason() -> None:
    assert event(state("ending", end_reason="hangup")).end_reason is None


@pytest.mark.parametrize("reason", ["noAnswer", "max_duration", "not_found", "decline"])
def test_an_end_reason_is_the_platforms_own_word(reason: str) -> None:
    assert event(state("ended", end_reason=reason)).end_reason == reason


@pytest.mark.parametrize("call_state", ["none", "transferring", "", None, 5, ["ended"], {}])
def test_a_state_that_is_not_in_the_list_is_ignored(call_state: object) -> None:
    assert ignored(state(call_state)).source == "relay"


@pytest.mark.parametrize("event_type", ["calling.call.ended", "call.ended"])
def test_a_state_may_be_the_event_type(event_type: str) -> None:
    assert event({"event_type": event_type, "params": {"call_id": "c-1"}}).kind is CallKind.ENDED


def test_a_receive_without_direction_is_inbound() -> None:
    for inner in ({"call_id": "c-1"}, {"call_id": "c-1", "direction": None}):
        got = event({"event_type": "calling.call.receive", "params": inner})
        assert (got.kind, got.direction) == (CallKind.STARTED, "inbound")


def test_a_receive_that_is_already_ringing_is_the_start() -> None:
    body = {"event_type": "calling.call.receive", "params": {"call_id": "c-1", "call_state": "ringing"}}
    assert event(body).kind is CallKind.STARTED


@pytest.mark.parametrize(
    "event_type",
    [
        "calling.call.play",
        "calling.call.record",
        "calling.call.connect",
        "calling.call.collect",
        "calling.call.tap",
        "calling.call.refer",
        "calling.call.stream",
        "calling.call.queue",
        "calling.conference",
        "calling.error",
        "calling.transcript.completed",
        "messaging.receive",
        "messaging.state",
        "queuing.relay.tasks",
        "tasking.task.receive",
        "signalwire.authorization.state",
    ],
)
def test_other_events_do_not_concern_a_calls_life(event_type: str) -> None:
    body = {"event_type": event_type, "params": {"call_id": "c-1", "state": "finished", "call_state": "ended"}}
    found = ignored(body)
    assert (found.source, found.what) == ("relay", event_type)


def test_a_connect_that_ended_leaves_its_parent_alone() -> None:
    params = {"call_id": "parent", "connect_state": "disconnected", "peer": {"call_id": "child", "node_id": "n"}}
    assert ignored({"event_type": "calling.call.connect", "params": params}).what == "calling.call.connect"


@pytest.mark.parametrize(
    "dial",
    [
        {"dial_state": "dialing", "tag": "t"},
        {"dial_state": "failed", "reason": "busy", "source": "s"},
        {"dial_state": "failed", "call": {}},
        {"dial_state": "failed", "call": {"call_id": "c-1"}},
        {"dial_state": "answered"},
        {"dial_state": "answered", "call": {}},
        {"dial_state": "answered", "call": "c-1"},
        {"dial_state": None, "call": {"call_id": "c-1"}},
        {"call": {"call_id": "c-1"}},
    ],
)
def test_a_dial_without_an_answered_call_is_ignored(dial: Body) -> None:
    assert ignored({"event_type": "calling.call.dial", "params": dial}).source == "relay"


@pytest.mark.parametrize("winner", [True, "true"])
def test_an_answered_dial_says_that_the_nested_call_is_up(winner: object) -> None:
    call = {"call_id": "c-1", "dial_winner": winner, "direction": "outbound"}
    got = event({"event_type": "calling.call.dial", "params": {"tag": "t", "dial_state": "answered", "call": call}})
    assert (got.kind, got.call_id, got.direction) == (CallKind.PROGRESS, "c-1", "outbound")
    assert got.attributes["dial_winner"] == "true"
    assert got.attributes["tag"] == "t"


@pytest.mark.parametrize(
    ("device", "parties"),
    [
        ({"type": "phone", "params": {"from_number": "+1555", "to_number": "1666"}}, ("+1555", "1666")),
        ({"type": "phone", "params": {"from_number": 1555, "to_number": 1666}}, ("1555", "1666")),
        ({"type": "sip", "params": {"from": "sip:a@x", "to": "sip:b@y"}}, ("sip:a@x", "sip:b@y")),
        ({"type": "agora", "params": {"from": "a", "to": "b", "appid": "x"}}, ("a", "b")),
        ({"type": "webrtc", "params": {"from": "/private/a", "to": "/public/b"}}, ("/private/a", "/public/b")),
        ({"type": "webrtc", "params": {}}, (None, None)),
        ({"type": "phone", "from_number": "+1555", "to_number": "+1666"}, ("+1555", "+1666")),
        ("phone", (None, None)),
        (None, (None, None)),
    ],
)
def test_every_device_type_has_its_parties(device: object, parties: tuple[str | None, str | None]) -> None:
    got = event(state(device=device))
    assert (got.from_, got.to) == parties


def test_the_sip_headers_of_a_device_are_attributes() -> None:
    headers = [{"name": "X-Tenant", "value": "acme"}, {"name": ""}, "junk", {"name": "X-Nothing", "value": None}]
    got = event(state(device={"type": "sip", "params": {"from": "a", "to": "b", "headers": headers}}))
    assert got.attributes["sip_header_x-tenant"] == "acme"
    assert got.attributes["device_type"] == "sip"
    assert "sip_header_x-nothing" not in got.attributes


def test_what_a_route_may_match_on_is_an_attribute() -> None:
    got = event(sample("relay/receive_created_phone.json"))
    assert {name: got.attributes[name] for name in ("project_id", "space_id", "context", "node_id", "device_type")} == {
        "project_id": "f523d6f3-f25c-45e8-b06e-32f164fd24e5",
        "space_id": "68679295-0223-4b5d-aecb-656d77977de2",
        "context": "office",
        "node_id": "2a82977a-fb91-4f81-b300-33f719a7ae7a@us-east",
        "device_type": "phone",
    }


def test_a_tag_may_be_a_list_and_an_empty_one_is_none() -> None:
    assert event(state(tag=["a", "b"])).attributes["tag"] == "a,b"
    assert "tag" not in event(state(tag="")).attributes


def test_the_context_was_called_protocol_before() -> None:
    assert event(state(protocol="office")).attributes["context"] == "office"


def test_a_legs_parent_is_named_and_its_peer_is_an_attribute() -> None:
    parent = {"device_type": "phone", "node_id": "n", "call_id": "a-leg"}
    got = event(state("ended", parent=parent, peer={"call_id": "b-leg", "node_id": "n"}))
    assert (got.call_id, got.parent_call_id, got.attributes["peer_call_id"]) == ("c-1", "a-leg", "b-leg")


@pytest.mark.parametrize("parent", ["a-leg", None, {}, {"call_id": ""}, {"call_id": 1.5}, {"call_id": "c-1"}])
def test_an_odd_parent_does_not_lose_the_call(parent: object) -> None:
    assert event(state(parent=parent)).parent_call_id is None


def test_the_time_of_the_envelope_is_in_seconds_and_the_calls_own_in_milliseconds() -> None:
    got = event(state())
    assert got.occurred_at is not None
    assert got.occurred_at.isoformat() == "2025-03-11T12:03:05.500000+00:00"
    timeless = {**state("ended", end_time=1741694585500, start_time=1741694000000), "timestamp": 1741694585500}
    assert event(timeless).occurred_at == got.occurred_at


@pytest.mark.parametrize(
    "frame",
    [
        {"jsonrpc": "2.0", "id": "1", "method": "signalwire.ping", "params": {"timestamp": 1741694585.5}},
        {"jsonrpc": "2.0", "id": "1", "result": {}},
        {"jsonrpc": "2.0", "id": "1", "error": {"code": -32002}},
        {"jsonrpc": "2.0", "id": "1", "method": "signalwire.event", "params": {"event_type": ""}},
        {"jsonrpc": "2.0", "id": "1", "method": "signalwire.event", "params": {"event_type": None}},
        {"jsonrpc": "2.0", "id": "1", "method": "signalwire.event", "params": {}},
        {
            "jsonrpc": "2.0",
            "id": "uuid",
            "method": "blade.broadcast",
            "params": {"event": "queuing.relay.tasks", "params": {"context": "office", "message": {"key": "value"}}},
        },
    ],
)
def test_frames_that_carry_no_event_are_ignored(frame: Body) -> None:
    assert ignored(frame).source == "relay"


def test_params_as_a_python_repr_are_not_understood() -> None:
    said = problem({"event_type": "calling.call.state", "params": "{'call_id': 'c-1', 'call_state': 'ended'}"})
    assert said == "relay: params must be an object, is text"
    frame = {"jsonrpc": "2.0", "method": "signalwire.event", "params": "{'event_type': 'calling.call.state'}"}
    assert "params of signalwire.event must be an object" in problem(frame)


def test_the_bare_object_of_a_call_is_enough() -> None:
    inner = sample("relay/state_ended_hangup.json")["params"]["params"]
    got = event(inner)
    assert (got.source, got.kind, got.end_reason) == ("relay", CallKind.ENDED, "hangup")


def test_the_bare_object_of_a_dial_is_enough() -> None:
    assert event(sample("relay/dial_answered.json")["params"]["params"]).source == "relay"
    assert ignored(sample("relay/dial_dialing.json")["params"]["params"]).what == "calling.call.dial dialing"
    failed = {"dial_state": "failed", "tag": "t", "call": {"call_id": "c-1"}}
    assert ignored(failed).what == "calling.call.dial failed"


@pytest.mark.parametrize(
    "body",
    [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}},
        {"event_type": "brand_activated", "event_category": "brand"},
        {"event_type": "order.created", "params": {"call_id": "c-1"}},
        {"event_type": 5, "params": {"call_id": "c-1"}},
    ],
)
def test_another_protocols_frames_are_not_relays(body: Body) -> None:
    assert "no known platform" in problem(body)
