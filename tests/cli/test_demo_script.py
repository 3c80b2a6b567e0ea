"""The calls of the demo: real samples, told apart, each run with ids of its own. No broker, no process."""

import pytest

from consumer.demo.script import PARTS, Part
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


def test_one_call_goes_quiet_and_all_have_different_things_to_do():
    assert sum(part.expires for part in PARTS) == 1
    todos = [todo for part in PARTS for todo in part.todos]
    assert len(todos) == len(set(todos))
