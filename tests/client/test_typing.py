"""What type checkers accept of the client's models."""

import keyword

from consumer.client import CallEvent, CallId, CallKind


def test_type_checkers_accept_the_fields_of_a_call_event() -> None:
    """They take an ``alias`` for the name of the parameter."""
    assert [one.alias for one in CallEvent.model_fields.values() if keyword.iskeyword(one.alias or "")] == []
    event = CallEvent(call_id=CallId("c"), kind=CallKind.STARTED, from_="+1")
    assert CallEvent.model_validate_json(event.model_dump_json()) == event
    assert event.model_dump()["from"] == "+1"
