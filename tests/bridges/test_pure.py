"""The bridge's decisions, without a network: lines, what is kept, what was missed."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.bridges.asterisk.ami_lines import MAX_HEADERS, MAX_LINE, AmiLines, written
from consumer.bridges.asterisk.known_calls import KnownCalls
from consumer.bridges.kept import Kept, LeftOut, Waiting
from consumer.broker.message import Message
from consumer.telephony import Translated, translate
from schemas.calls import CallEvent, CallId, CallKind

NAMES = st.text(st.characters(codec="ascii", exclude_characters=":\r\n", exclude_categories=["Cc"]), min_size=1)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[one:other] for one, other in pairwise(places)]


@given(st.binary(max_size=2_000), st.lists(st.integers(0, 2_000)))
def test_no_bytes_stop_the_reader_and_no_cut_matters(data: bytes, cuts: list[int]):
    whole = list(AmiLines().feed(data))
    lines = AmiLines()
    assert [packet for chunk in chunks(data, cuts) for packet in lines.feed(chunk)] == whole
    for packet in whole:
        body = json.dumps(packet).encode()
        translate(body, platform="asterisk")  # never raises


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"Event: Newchannel",
                b"Event: Hangup",
                b"Uniqueid: 1.2",
                b"Uniqueid: ",
                b"Linkedid: 1.1",
                b"Cause: 16",
                b"",
            ]
        ),
        st.binary(max_size=40),
    )
)


@given(LINES)
def test_nearly_right_lines_make_events_or_nothing(lines: list[bytes]):
    for packet in AmiLines().feed(b"\r\n".join([*lines, b"", b""])):
        translate(json.dumps(packet).encode(), platform="asterisk")


@given(st.lists(st.dictionaries(NAMES, VALUES, min_size=1)))
def test_what_is_written_is_read(packets: list[dict[str, str]]):
    data = b"".join("".join(f"{k}: {v}\r\n" for k, v in one.items()).encode() + b"\r\n" for one in packets)
    assert list(AmiLines().feed(data)) == [{k: v.strip() for k, v in one.items()} for one in packets]


def test_headers_that_repeat_and_output_without_headers():
    data = (
        b"Asterisk Call Manager/9.0.0\r\nEvent: X\r\nChanVariable: a=1\r\nChanVariable: b=2\r\nChanVariable: c\r\n\r\n"
    )
    assert list(AmiLines().feed(data)) == [{"Event": "X", "ChanVariable": ["a=1", "b=2", "c"]}]


@pytest.mark.parametrize("huge", [b"x" * (2 * MAX_LINE), b"A: b\r\n" * (MAX_HEADERS + 1)], ids=["line", "packet"])
def test_what_is_too_large_is_left_out_alone(huge: bytes):
    lines = AmiLines()
    assert list(lines.feed(b"Event: A\r\n" + huge + b"\r\n\r\nEvent: B\r\n\r\n")) == [{"Event": "B"}]
    assert lines.left_out == 1


def test_no_value_becomes_a_second_header():
    with pytest.raises(ValueError, match="line break"):
        written("Login", {"Username": "a\r\nAction: Originate"})


def waiting(call: str, kind: CallKind, *, first: bool = False) -> Waiting:
    return Waiting(Message(call.encode()), CallId(call), kind, first)


KINDS = st.sampled_from(list(CallKind))


@given(st.lists(st.tuples(st.sampled_from("abcdefghijkl"), KINDS), max_size=400))
def test_within_the_bound_no_call_that_was_told_of_loses_its_end(told: list[tuple[str, CallKind]]):
    kept, seen, lost = Kept(100), set[str](), 0
    for call, kind in told:
        first = kind is CallKind.STARTED and call not in seen and call in "abcdef"  # the others began before
        seen.add(call)
        left = kept.put(waiting(call, kind, first=first))
        lost += left.lost if left else 0
        assert len(kept) <= 100
    rest = [kept.take() for _ in range(len(kept))]
    if not lost:
        before = {call for call in "ghijkl" if (call, CallKind.ENDED) in told}
        assert before <= {str(one.call_id) for one in rest if one.kind is CallKind.ENDED}


def test_calls_that_were_over_go_first_then_the_oldest():
    kept = Kept(100)
    left: list[LeftOut] = []
    kept.put(waiting("ends", CallKind.ENDED))
    for number in range(60):
        for kind in (CallKind.STARTED, CallKind.ENDED):
            left += filter(None, [kept.put(waiting(f"short-{number}", kind, first=kind is CallKind.STARTED))])
    assert [(one.over, one.lost) for one in left] == [(100, 0)]
    assert kept.take().call_id == "ends"
    for number in range(200):
        left += filter(None, [kept.put(waiting(f"long-{number}", CallKind.STARTED, first=True))])
    assert sum(one.lost for one in left) > 0
    assert len(kept) <= 100


def channel(number: str, name: str = "Newchannel", state: str = "Ring") -> tuple[CallEvent, dict[str, str]]:
    payload = {"Event": name, "Uniqueid": number, "ChannelStateDesc": state}
    found = translate(json.dumps(payload).encode(), platform="asterisk")
    assert isinstance(found, Translated)
    return found.event, payload


def test_what_was_heard_since_counts_for_more_than_the_list():
    calls = KnownCalls()
    for number in ("stays", "ended", "heard", "ends later", "rings"):
        assert calls.heard(*channel(number))
    assert not calls.heard(*channel("stays"))
    calls.cut_off()
    calls.heard(*channel("heard", "Newstate", "Up"))  # after the list was made
    calls.heard(*channel("brand new"))
    calls.heard(*channel("ends later", "Hangup"))
    listed = ("stays", "ends later", "missed")
    living = {CallId(number): channel(number) for number in listed} | {CallId("rings"): channel("rings", state="Up")}
    missed = calls.missed(living, starts=True)
    assert [one["Uniqueid"] for one in missed.started] == ["missed"]
    assert [one["Uniqueid"] for one in missed.changed] == ["rings"]
    assert [one["Uniqueid"] for one in missed.ended] == ["ended"]
    assert len(missed) == 3


def test_a_late_word_on_a_call_that_is_over_does_not_bring_it_back():
    calls = KnownCalls()
    calls.heard(*channel("a"))
    calls.heard(*channel("a", "Hangup"))
    calls.heard(*channel("a", "Newstate"))
    assert len(calls) == 0
    calls.heard(*channel("b"))
    calls.cut_off()
    calls.cannot_compare()
    assert len(calls) == 0
