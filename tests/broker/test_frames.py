"""Frames that the library cannot decode become ones that it can, and all others stay what they are."""

import asyncio
import struct
import time
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from aiormq.connection import FrameReceiver
from aiormq.exceptions import InvalidFrameError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pamqp import commands, constants, frame
from pamqp.header import ContentHeader

from consumer.broker.frames import DEPTH, FIELDS, decodable, short_string, shortened
from tests.amqp_values import of_type
from tests.raw_amqp import long, moment, nested, short, table

HEAD = struct.pack(">HHQ", 60, 0, 5)
FLAGS = commands.Basic.Properties.flags
SHORT_STRINGS = [name for name in FLAGS if commands.Basic.Properties.amqp_type(name) == "shortstr"]


def header(**properties: bytes) -> bytes:
    """A content header with these properties, encoded already."""
    flags = sum(FLAGS[name] for name in properties)
    return HEAD + struct.pack(">H", flags) + b"".join(properties[name] for name in FLAGS if name in properties)


def framed(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"


def decoded(payload: bytes) -> commands.Basic.Properties:
    _, _, read = frame.unmarshal(framed(constants.FRAME_HEADER, payload))
    assert isinstance(read, ContentHeader)
    return read.properties


def method_of(payload: bytes) -> Any:
    """A method, mended and decoded."""
    _, _, read = frame.unmarshal(framed(constants.FRAME_METHOD, decodable(constants.FRAME_METHOD, payload)))
    return read


def mended(**properties: bytes) -> commands.Basic.Properties:
    return decoded(decodable(constants.FRAME_HEADER, header(**properties)))


def deliver(exchange: bytes, key: bytes) -> bytes:
    return struct.pack(">I", commands.Basic.Deliver.index) + short(b"tag") + bytes(9) + short(exchange) + short(key)


def test_a_consumer_tag_in_another_encoding_is_read_as_well():
    """A client chooses its tags itself, and ours are ASCII; but a frame that comes is read whatever is in it."""
    payload = struct.pack(">I", commands.Basic.Deliver.index) + short(b"\x80") + bytes(9) + short(b"x") + short(b"k")
    assert method_of(payload).consumer_tag == "\ufffd"


def deep(depth: int) -> bytes:
    return table((b"deep", nested(depth)), (b"beside", b"t\1"))


UNDECODABLE: Final = {
    "text": header(message_type=short(b"caf\xe9")),
    "timestamp": header(timestamp=moment(int(1.79e15))),
    "name": header(headers=table((b"caf\xe9", b"V"))),
    "field": header(headers=table((b"at", b"T" + moment(2**63)))),
    "nesting": header(headers=deep(600)),
}


@pytest.mark.parametrize("kind", UNDECODABLE)
async def test_the_library_still_loses_its_connection_over_what_it_cannot_decode(kind):
    """When this fails, a new version of aiormq or pamqp can do without ``consumer/broker/transport.py``."""
    reader = asyncio.StreamReader()
    reader.feed_data(framed(constants.FRAME_HEADER, UNDECODABLE[kind]))
    with pytest.raises((InvalidFrameError, OverflowError, RecursionError)):
        await FrameReceiver(reader).get_frame()


def test_what_can_be_decoded_is_left_alone():
    for payload in (
        header(),
        header(content_type=short(b"application/json"), delivery_mode=b"\2", timestamp=moment(int(time.time()))),
        header(message_type=short("gespräch".encode()), headers=table(("größe".encode(), b"S" + long(b"\xff")))),
        header(headers=deep(DEPTH - 1)),
        header(headers=table((b"at", b"T" + moment(253_402_300_799_999)))),
    ):
        assert decodable(constants.FRAME_HEADER, payload) == payload
        decoded(payload)
    for key in (b"some.key", b"k" * 255, "gespräch".encode()):
        payload = deliver(b"mcp.calls", key)
        assert decodable(constants.FRAME_METHOD, payload) == payload
    assert decodable(constants.FRAME_BODY, b"\xff") == b"\xff"


@pytest.mark.parametrize("name", SHORT_STRINGS)
def test_text_in_another_encoding_has_its_wrong_letters_replaced(name):
    assert getattr(mended(**{name: short(b"caf\xe9!")}), name) == "caf\ufffd!"
    assert getattr(mended(**{name: short(b"\xff" * 255)}), name) == "\ufffd" * 85


@pytest.mark.parametrize("unit", [1_000_000, 1_000_000_000])
def test_a_timestamp_in_microseconds_or_nanoseconds_is_understood(unit):
    noon = datetime(2026, 11, 27, 12, 0, 5, tzinfo=UTC)
    assert mended(timestamp=moment(int(noon.timestamp() * unit))).timestamp == noon


@pytest.mark.parametrize("number", [2**64 - 1, 2**63, 2**63 - 1, 10**17])
def test_a_timestamp_that_is_no_date_is_left_out_and_the_rest_is_kept(number):
    read = mended(message_id=short(b"m-1"), timestamp=moment(number), message_type=short(b"t"), app_id=short(b"a"))
    assert (read.message_id, read.timestamp, read.message_type, read.app_id) == ("m-1", None, "t", "a")


def test_a_table_keeps_what_is_usable():
    read = mended(
        headers=table(
            (b"caf\xe9", b"S" + long(b"x")),
            (b"at", b"T" + moment(2**63 - 1)),
            (b"list", b"A" + long(b"T" + moment(2**63) + b"t\1")),
            (b"unknown", b"?????"),
            (b"behind", b"V"),
        ),
        message_id=short(b"m-1"),
    )
    assert read.headers == {"caf\ufffd": "x", "at": 2**63 - 1, "list": [-(2**63), True]}
    assert read.message_id == "m-1"


def test_what_is_nested_too_deep_becomes_void():
    read = mended(headers=deep(600))
    assert read.headers is not None
    assert read.headers["beside"] is True
    depth, value = 0, read.headers["deep"]
    while isinstance(value, dict):
        depth, value = depth + 1, value["k"]
    assert (depth, value) == (DEPTH - 1, None)


def test_a_table_of_countless_fields_is_cut():
    """pamqp copies what is left of a table for each of its fields: a second of the loop for a hundred thousand."""
    read = mended(headers=table((b"kept", b"V"), (b"many", b"A" + long(b"V" * 100_000)), (b"cut", b"V")))
    assert read.headers == {"kept": None, "many": [None] * (FIELDS - 2)}


def test_a_routing_key_in_another_encoding_has_its_wrong_letters_replaced():
    for payload in (
        deliver(b"caf\xe9", b"\xff.key"),
        struct.pack(">IH", commands.Basic.Return.index, 312)
        + short(b"NO_ROUTE")
        + short(b"caf\xe9")
        + short(b"\xff.key"),
        struct.pack(">IQB", commands.Basic.GetOk.index, 1, 1) + short(b"caf\xe9") + short(b"\xff.key") + bytes(4),
    ):
        read = method_of(payload)
        assert (read.exchange, read.routing_key) == ("caf\ufffd", "\ufffd.key")


def test_a_sentence_of_the_broker_that_it_has_cut_within_a_letter_is_read():
    text = "NOT_FOUND - no exchange 'é".encode()[:-1]
    payload = struct.pack(">IH", commands.Channel.Close.index, 404) + short(text) + struct.pack(">HH", 60, 40)
    read = method_of(payload)
    assert (read.reply_text, read.class_id, read.method_id) == ("NOT_FOUND - no exchange '\ufffd", 60, 40)


def test_text_is_shortened_by_whole_letters():
    assert shortened("é" * 200) == "é" * 127
    assert shortened("a" * 255) == "a" * 255
    assert short_string("\ud800" * 10) == short(b"?" * 10)


TYPES = {name: of_type(commands.Basic.Properties.amqp_type(name)) for name in FLAGS}
headers = st.fixed_dictionaries({}, optional=TYPES).map(lambda some: header(**some))
cut = st.tuples(headers, st.integers(14, 400)).map(lambda one: one[0][: one[1]])
noise = st.tuples(st.binary(min_size=2, max_size=2), st.binary(max_size=200)).map(lambda one: HEAD + b"".join(one))


@settings(max_examples=1000, deadline=None)
@given(headers)
@example(header(headers=table((b"", b"D\xff\x80\0\0\0"), (b"\0", b"\0"), (b"f", b"f\x7f\xc0\0\0"))))
def test_every_content_header_can_be_decoded_and_says_what_the_library_would_have_read(payload):
    read = decoded(decodable(constants.FRAME_HEADER, payload))
    try:
        before = decoded(payload)
    except Exception:  # noqa: BLE001 - pamqp has many words for it
        return
    assert [repr(read[name]) for name in FLAGS] == [repr(before[name]) for name in FLAGS]


@settings(max_examples=300, deadline=None)
@given(st.one_of(headers, cut, noise))
@example(HEAD + b"\0\1\0\0")
def test_what_ends_too_early_can_be_decoded_and_what_was_mended_needs_no_mending(payload):
    decoded(decodable(constants.FRAME_HEADER, payload))
    once = decodable(constants.FRAME_HEADER, payload)
    assert decodable(constants.FRAME_HEADER, once) == once


@pytest.mark.filterwarnings("ignore:This command is deprecated")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(commands.INDEX_MAPPING)), st.data())
def test_every_method_can_be_decoded(index, data):
    method: Any = commands.INDEX_MAPPING[index]
    body, bits = b"", 0
    for name in method.attributes():
        kind = method.amqp_type(name)
        if kind == "bit":
            body += b"\1" if bits == 0 else b""
            bits = (bits + 1) % 8
            continue
        bits = 0
        body += data.draw(of_type(kind))
    method_of(struct.pack(">I", index) + body)
