"""The record of a session's tools."""

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.sessions import ToolRecord
from consumer.sessions.record import EXACT_CALLS

DURATIONS = st.floats(min_value=2e-6, max_value=600_000)


def rank(durations: list[float], share: float) -> float:
    return sorted(durations)[max(1, math.ceil(share * len(durations))) - 1]


def record_of(durations: list[float]) -> ToolRecord:
    record = ToolRecord()
    for seconds in durations:
        record.add(seconds)
    return record


def test_a_session_without_calls_has_no_percentiles() -> None:
    assert ToolRecord().summary() == {
        "calls": 0,
        "errors": 0,
        "p50": None,
        "p95": None,
        "longest": None,
        "time_in_flight": 0.0,
        "bytes_in": 0,
        "bytes_out": 0,
        "start": None,
        "start_duration": None,
    }


def test_calls_errors_bytes_and_start_are_summed_up() -> None:
    record = ToolRecord("warm", 0.0031)
    record.add(0.010, bytes_in=20, bytes_out=300)
    record.add(0.030, error=True, bytes_in=5)
    assert record.summary() == {
        "calls": 2,
        "errors": 1,
        "p50": 0.010,
        "p95": 0.030,
        "longest": 0.030,
        "time_in_flight": 0.040,
        "bytes_in": 25,
        "bytes_out": 300,
        "start": "warm",
        "start_duration": 0.0031,
    }


@given(st.lists(DURATIONS, min_size=1, max_size=EXACT_CALLS), st.floats(0, 1))
def test_percentiles_of_few_calls_are_exact(durations: list[float], share: float) -> None:
    assert record_of(durations).percentile(share) == rank(durations, share)


@given(st.lists(DURATIONS, min_size=1, max_size=40), st.floats(0, 1))
def test_percentiles_of_many_calls_are_within_two_percent(few: list[float], share: float) -> None:
    durations = few * (EXACT_CALLS // len(few) + 1)
    record = record_of(durations)
    assert record.percentile(share) == pytest.approx(rank(durations, share), rel=0.021)
    assert record.percentile(1) == pytest.approx(record.longest, rel=0.021)
    assert record.longest == max(durations)


def test_half_of_many_calls_are_as_fast_as_the_median() -> None:
    record = record_of([1.0, 10.0] * EXACT_CALLS)
    assert record.percentile(0.5) == pytest.approx(1.0, rel=0.021)
    assert record.percentile(0.501) == pytest.approx(10.0, rel=0.021)


def test_a_duration_of_nothing_is_a_duration() -> None:
    record = record_of([0.0] * (EXACT_CALLS + 1))
    assert record.percentile(0.5) == 0.0
    assert record.longest == 0.0


def test_a_million_calls_take_no_more_memory_than_a_thousand() -> None:
    record = record_of([1.001 ** (i % 20_000) * 1e-6 for i in range(100_000)])
    assert record._buckets is not None
    assert len(record._buckets) < 700
    assert record._durations == array("d")
