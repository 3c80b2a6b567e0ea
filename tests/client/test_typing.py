"""What type checkers accept of the client's models, and what the models themselves do not."""

import inspect
import keyword
from typing import Any

import pytest
from pydantic import ValidationError

from consumer.client import CallEvent, CallId, CallKind, InvalidArgument, SessionsError


def test_type_checkers_accept_the_fields_of_a_call_event() -> None:
    """They take an ``alias`` for the name of the parameter."""
    assert [one.alias for one in CallEvent.model_fields.values() if keyword.iskeyword(one.alias or "")] == []
    event = CallEvent(call_id=CallId("c"), kind=CallKind.STARTED, from_="+1")
    assert CallEvent.model_validate_json(event.model_dump_json()) == event
    assert event.model_dump()["from"] == "+1"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "started"}, "CallEvent: call_id: "),
        ({"call_id": "c", "kind": "begun"}, "CallEvent: kind: "),
        ({"call_id": "c", "kind": "started", "form": "+1"}, "CallEvent: form: is unknown; did you mean from?"),
        ({"call_id": "c", "kind": "started", "from_": 1}, "CallEvent: from"),
    ],
)
def test_a_wrong_call_event_is_an_error_of_the_client(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(SessionsError) as caught:
        CallEvent(**fields)
    assert isinstance(caught.value, InvalidArgument)
    assert caught.value.message.startswith(told)
    assert caught.value.executed is False
    with pytest.raises(ValidationError):  # whoever reads a message tells its sender, and in other words
        CallEvent.model_validate(fields)
    assert list(inspect.signature(CallEvent).parameters)[:2] == ["call_id", "kind"]
