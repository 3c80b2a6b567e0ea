"""Tool arguments as they are typed. No broker, no process."""

import pytest
import typer

from consumer.cli.calls import guessed_type
from consumer.cli.events import topic
from consumer.cli.typed_values import tool_arguments, wants_schema

SCHEMA = {
    "properties": {
        "zip": {"type": "string"},
        "count": {"type": "integer"},
        "tags": {"type": "array"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "odd": {"type": [3, "number"]},
        "strange": 5,
    }
}


@pytest.mark.parametrize(
    ("typed", "value"),
    [("zip=12345", "12345"), ("count=3", 3), ('tags=["a"]', ["a"]), ("note=null", "null"), ("limit=null", None),
     ("odd=1.5", 1.5), ("strange=5", "5"), ("other=5", "5"), ("other=", ""), ("other=a=b", "a=b"), ("count=x", "x")],
)  # fmt: skip
def test_a_value_is_what_the_schema_says_and_text_where_it_says_nothing(typed: str, value: object):
    assert tool_arguments([typed], SCHEMA) == {typed.partition("=")[0]: value}


def test_without_arguments_there_are_none_and_a_json_object_is_taken_as_it_is():
    assert tool_arguments([]) == {}
    assert tool_arguments(['{"count": 3, "text": "a=b"}'], SCHEMA) == {"count": 3, "text": "a=b"}


@pytest.mark.parametrize("given", [["text"], ["=x"], ["{"], ['{"a": 1}', "b=2"], ["[1]"]])
def test_what_is_no_argument_is_a_usage_error(given: list[str]):
    with pytest.raises(typer.BadParameter):
        tool_arguments(given)


def test_the_schema_is_asked_for_only_when_it_matters():
    assert not wants_schema(["text=call back", "to=+1555"])
    assert not wants_schema(['{"count": 3}'])
    assert wants_schema(["text=x", "count=3"])


def test_a_word_is_a_pattern_for_what_happened():
    assert topic("closed") == "*.closed.#"
    assert topic("session.closed.*") == "session.closed.*"
    assert topic("#") == "#"


def test_the_content_type_is_guessed_from_the_content():
    assert guessed_type(b' {"a": 1}') == "application/json"
    assert guessed_type(b'[{"a": "b=c"}]') == "application/json"
    assert guessed_type(b"CallSid=1&CallStatus=ringing") == "application/x-www-form-urlencoded"
