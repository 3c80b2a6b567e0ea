"""A route decides which services a starting call gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import ValidationError

from consumer.calls.routes import Plan, Route, plan
from schemas.calls import CallEvent
from schemas.ids import ServiceName


@dataclass(frozen=True)
class Service:
    enabled: bool = True


SERVICES: Mapping[ServiceName, Service] = {
    ServiceName("todo"): Service(),
    ServiceName("crm"): Service(),
    ServiceName("off"): Service(enabled=False),
}


def call(**said: Any) -> CallEvent:
    return CallEvent.model_validate({"call_id": "c1", "kind": "started", **said}, strict=False)


def route(*services: str, **said: Any) -> Route:
    return Route.model_validate({"services": list(services), **said})


def chosen(event: CallEvent, *routes: Route) -> tuple[str, ...]:
    return plan(event, routes, SERVICES).services


def test_without_routes_every_enabled_service_opens_in_the_order_of_the_configuration() -> None:
    assert plan(call(), [], SERVICES) == Plan(services=(ServiceName("todo"), ServiceName("crm")))


def test_with_routes_and_no_match_nothing_opens() -> None:
    assert plan(call(direction="outbound"), [route("todo", match={"direction": "inbound"})], SERVICES) == Plan()


def test_the_first_route_that_matches_decides() -> None:
    routes = (route("crm", match={"to": "+1555*"}), route("todo", match={"to": "+1*"}), route("todo", "crm"))
    assert chosen(call(to="+15551234"), *routes) == ("crm",)
    assert chosen(call(to="+19990000"), *routes) == ("todo",)
    assert chosen(call(to="+4930123"), *routes) == ("todo", "crm")


def test_a_route_without_a_match_matches_every_call() -> None:
    assert chosen(call(), route("todo")) == ("todo",)


def test_every_condition_must_fit() -> None:
    both = route("todo", match={"direction": "inbound", "to": "+1555*"})
    assert chosen(call(direction="inbound", to="+15551"), both) == ("todo",)
    assert chosen(call(direction="inbound", to="+4930"), both) == ()
    assert chosen(call(direction="outbound", to="+15551"), both) == ()


def test_one_of_several_patterns_must_fit() -> None:
    either = route("todo", match={"to": ["+1555*", "sip:?*@example.com"]})
    assert chosen(call(to="+15551"), either) == ("todo",)
    assert chosen(call(to="sip:a@example.com"), either) == ("todo",)
    assert chosen(call(to="sip:@example.com"), either) == ()


def test_attributes_match_as_text() -> None:
    attributes = {"tenant": "acme", "line": 7, "vip": True, "nested": {"a": 1}, "nothing": None}
    for name, pattern in (("tenant", "ac*"), ("line", "7"), ("vip", "true")):
        assert chosen(call(attributes=attributes), route("todo", match={name: pattern})) == ("todo",)
    for name in ("nested", "nothing", "absent"):
        assert chosen(call(attributes=attributes), route("todo", match={name: "*"})) == ()


@pytest.mark.parametrize("field", ["from", "to", "direction", "parent_call_id"])
def test_a_field_that_is_not_there_matches_nothing_not_even_a_star(field: str) -> None:
    assert chosen(call(), route("todo", match={field: "*"})) == ()


def test_an_empty_field_is_there() -> None:
    assert chosen(call(**{"from": ""}), route("todo", match={"from": "*"})) == ("todo",)


def test_a_field_of_the_event_goes_before_an_attribute_of_its_name() -> None:
    event = call(source="relay", attributes={"source": "forged", "from": "forged"})
    assert chosen(event, route("todo", match={"source": "forged"})) == ()
    assert chosen(event, route("todo", match={"from": "forged"})) == ()
    assert chosen(event, route("todo", match={"source": "relay", "call_id": "c?"})) == ("todo",)


def test_patterns_mind_case() -> None:
    assert chosen(call(to="sip:Alice@x"), route("todo", match={"to": "sip:alice@*"})) == ()


def test_the_order_is_the_routes_and_disabled_services_are_left_out() -> None:
    assert chosen(call(), route("off", "crm", "todo")) == ("crm", "todo")


def test_a_route_without_services_makes_an_exception() -> None:
    assert chosen(call(to="+1900"), route(match={"to": "+1900*"}), route("todo")) == ()


def test_a_plan_has_the_routes_timeout_and_metadata() -> None:
    one = route("todo", timeout=600, metadata={"tenant": "acme"})
    assert plan(call(), [one], SERVICES) == Plan((ServiceName("todo"),), 600.0, {"tenant": "acme"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"services": ["a", "a"]},
        {"services": ["two words"]},
        {"services": ["a"], "match": {"to": []}},
        {"services": ["a"], "match": {"to": 5}},
        {"services": ["a"], "match": {"direction": "incoming"}},
        {"services": ["a"], "match": {"direction": ["inbound", "Outbound"]}},
        {"services": ["a"], "timeout": 0},
        {"services": ["a"], "metadata": {"call": {}}},
        {"services": ["a"], "maches": {}},
        {},
    ],
)
def test_a_route_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Route.model_validate(wrong)


@pytest.mark.parametrize(
    ("start", "state", "rings"),
    [
        ("ringing", "ringing", False),
        ("answered", "created", True),
        ("answered", "ringing", True),
        ("answered", "answered", False),
        ("answered", None, False),
    ],
)
def test_a_route_may_wait_for_the_answer(start: str, state: str | None, rings: bool) -> None:
    event = call(attributes={"call_state": state} if state else {})
    assert plan(event, [route("todo", start=start)], SERVICES).rings is rings
    assert not plan(event, [route("off", start=start)], SERVICES).rings
    assert not plan(event, [], SERVICES).rings
