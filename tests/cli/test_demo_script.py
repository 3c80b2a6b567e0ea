"""The calls of the demo: real samples, told apart, each run with ids of its own. No broker, no process."""

import time

import pytest

from consumer.demo.lines import signature
from consumer.demo.script import PARTS, Part
from consumer.gateway.signatures import signalwire
from consumer.gateway.signatures.signed import Signed
from consumer.telephony import Translated, translate

BY_SOURCE = pytest.mark.parametrize("part", PARTS, ids=lambda part: part.source)


@BY_SOURCE
def test_a_part_starts_and_ends_a_call_under_a_fresh_id(part: Part):
    call_id = part.fresh_id()
    assert call_id != part.fresh_id()
    for event, kind in ((part.started, "started"), (part.ended, "ended")):
        told = translate(part.body(event, call_id), content_type=part.content_type)
        assert isinstance(told, Translated)
        assert (told.event.source, told.event.kind.value, told.event.call_id) == (part.source, kind, call_id)


@BY_SOURCE
def test_nothing_of_the_sampled_call_is_left(part: Part):
    call_id = part.fresh_id()
    for event in (part.started, part.ended):
        assert part.call_id.encode() not in part.body(event, call_id)
    assert part.call_id not in part.routing_key(call_id)
    assert part.exchange is None or call_id in part.routing_key(call_id) or part.source == "wazo"


@pytest.mark.parametrize("part", [part for part in PARTS if part.over_http], ids=lambda part: part.source)
def test_an_event_over_http_is_signed_so_that_the_gateway_believes_it_and_no_other(part: Part):
    url, body = "http://127.0.0.1:8080/signalwire/events", part.body(part.started, part.fresh_id())
    headers = signature("key", url, body, part.content_type)

    def holds(key: str, body: bytes) -> bool:
        return signalwire.holds([key], Signed("POST", url, headers, body, time.time()))

    assert holds("key", body)
    assert not holds("another", body)
    assert not holds("key", part.body(part.started, part.fresh_id()))


def test_signalwires_calls_come_over_http_and_the_others_over_rabbitmq():
    assert {part.source for part in PARTS if part.over_http} == {"relay", "swml_status", "cxml", "swaig"}
    assert all(part.over_http or part.exchange for part in PARTS)


def test_one_call_goes_quiet_and_all_have_different_things_to_do():
    assert sum(part.expires for part in PARTS) == 1
    todos = [todo for part in PARTS for todo in part.todos]
    assert len(todos) == len(set(todos))
