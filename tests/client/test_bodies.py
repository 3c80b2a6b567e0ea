"""What a request says is on the wire as it was given."""

import json

import pytest

from consumer.client.typed_requests import body_of


@pytest.mark.parametrize("text", ["hello", "José", "\U0001f4de", "a\x00b", '"\\/\n'])
def test_text_is_written_as_it_is(text: str):
    assert json.loads(body_of({"text": text, "left_out": None})) == {"text": text}


def test_half_a_surrogate_pair_is_sent_for_the_worker_to_judge():
    assert body_of({"text": "\ud800"}) == b'{"text": "\xed\xa0\x80"}'


def test_what_is_no_json_is_the_callers_mistake():
    with pytest.raises(TypeError):
        body_of({"text": object()})
