"""What is written for the wire without the library is what the library would write."""

from typing import Any

import pytest
from aiormq.abc import ChannelFrame
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from consumer.broker.publish_frames import published


def by_the_library(channel, exchange, key, properties, body, most) -> bytes:
    pieces = [body[start : start + most] for start in range(0, len(body), most)]
    frames: list[Any] = [
        Basic.Publish(exchange=exchange, routing_key=key),
        ContentHeader(properties=properties, body_size=len(body)),
        *map(ContentBody, pieces),
    ]
    return ChannelFrame.marshall(channel, frames).payload


@given(
    channel=st.integers(1, 65_535),
    exchange=st.text(alphabet="abcXYZ09-_.:", max_size=127),
    key=st.text(alphabet=st.characters(codec="utf-8"), max_size=60),
    correlation_id=st.text(alphabet="abc123", min_size=1, max_size=40),
    body=st.binary(max_size=300),
    most=st.integers(1, 100),
)
def test_the_frames_are_those_of_the_library(channel, exchange, key, correlation_id, body, most):
    properties = Basic.Properties(correlation_id=correlation_id, delivery_mode=1, content_type="application/json")
    written = published(channel, exchange, key, properties.marshal(), body, most)
    assert written.payload == by_the_library(channel, exchange, key, properties, body, most)
    assert (written.should_close, written.drain_future) == (False, None)


@pytest.mark.parametrize(("exchange", "key"), [("e" * 200, ""), ("no such letter: \x00", ""), ("", "k" * 256)])
def test_what_no_broker_takes_is_refused(exchange: str, key: str):
    with pytest.raises(ValueError, match=r"(?i)exchange|long|length"):
        published(1, exchange, key, b"\0\0", b"", 0)
