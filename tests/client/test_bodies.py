"""What a request says is on the wire as it was given."""

import json
import math
import re
from datetime import date
from decimal import Decimal

import pytest

from consumer.client.arguments import encoded
from consumer.client.typed_requests import as_given
from schemas.errors import InvalidArgument


@pytest.mark.parametrize("text", ["hello", "José", "\U0001f4de", "a\x00b", '"\\/\n'])
def test_text_is_written_as_it_is(text: str):
    assert json.loads(encoded({"text": text, "left_out": None})) == {"text": text}


def test_what_a_gateway_hands_on_is_sent_for_the_worker_to_judge():
    assert as_given({"text": "\ud800"}) == b'{"text": "\xed\xa0\x80"}'


class Inside(dict):
    def __init__(self) -> None:
        super().__init__(itself=self)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"price": math.nan}, "arguments.price: must be a finite number, is nan"),
        ([1, {"price": -math.inf}], "arguments[1].price: must be a finite number, is -inf"),
        ({"text": "a\ud800"}, "arguments.text: is not valid Unicode: it has half a surrogate pair at position 1"),
        ({"\ud800": "a"}, "a key of arguments: is not valid Unicode"),
        ({"NaN": "Infinity", "audio": b"abc"}, "arguments.audio: must be a JSON value, is of type bytes"),
        ({"audio": [bytearray(b"abc")]}, "arguments.audio[0]: must be a JSON value, is of type bytearray"),
        ({"text": object()}, "arguments.text: must be a JSON value, is of type object"),
        (Inside(), "the request contains itself"),
        ({"prices": {1: "one"}}, "a key of arguments.prices: must be a str, is of type int (1)"),
        ([{None: "one"}], "a key of arguments[0]: must be a str, is None (None)"),
        ({(1, 2): "one"}, "a key of arguments: must be a str, is of type tuple ((1, 2))"),
    ],
    ids=[
        "nan",
        "infinity",
        "half a surrogate",
        "a key of it",
        "bytes",
        "bytearray",
        "object",
        "itself",
        "a number as a key",
        "None as a key",
        "a tuple as a key",
    ],
)
def test_what_json_cannot_express_is_refused_with_the_way_to_it(value: object, told: str):
    with pytest.raises(InvalidArgument, match=re.escape(told)) as caught:
        encoded({"session_id": "c", "arguments": value})
    assert (caught.value.code, caught.value.executed) == ("INVALID_ARGUMENT", False)


def test_text_that_only_looks_like_no_number_is_sent():
    given = {"text": "NaN Infinity", "when": date(2026, 1, 2), "three": (1, 2.5, True), "amount": Decimal("1.10")}
    assert json.loads(encoded(given)) == given | {"when": "2026-01-02", "three": [1, 2.5, True], "amount": "1.10"}
