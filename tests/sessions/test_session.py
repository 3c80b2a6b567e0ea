"""One session, without a manager."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from consumer.sessions import Session
from schemas.events import EndReason

from .processes import TODO, Remote, sid


def session_of(**given: object) -> Session[Remote]:
    return Session(sid("call-1"), TODO, Remote(), **given)  # type: ignore[arg-type]


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_it_is_made_as_signalwires_is() -> None:
    now = datetime.now(UTC)
    session = Session(sid("call-1#todo"), TODO, Remote(), now, now, 60, {"tenant": "acme"})
    assert (session.created_at, session.last_accessed, session.timeout) == (now, now, 60)
    assert session.metadata == {"tenant": "acme"}
    assert session.call_id == "call-1"
    assert session.is_alive
    assert not session.is_expired
    assert 59 < session.time_remaining <= 60
    assert not session.has_ended


def test_it_expires_when_nobody_has_touched_it_for_its_timeout() -> None:
    session = session_of(created_at=ago(61), last_accessed=ago(61), timeout=60)
    assert session.is_expired
    assert session.expired_because is EndReason.IDLE
    assert session.time_remaining == 0
    session.touch()
    assert not session.is_expired
    assert session.time_remaining > 59
    assert session.last_accessed > ago(1)


def test_it_does_not_go_idle_while_calls_are_in_flight_and_idle_time_counts_from_the_last() -> None:
    session = session_of(last_accessed=ago(61), timeout=60)
    first, second = session.in_use(), session.in_use()
    first.__enter__()
    second.__enter__()
    session._touched -= 1_000  # as if both ran this long
    assert session.in_flight == 2
    assert not session.is_expired
    assert session.time_remaining == 60
    first.__exit__(None, None, None)
    session._touched -= 1_000
    assert not session.is_expired
    second.__exit__(None, None, None)
    assert session.in_flight == 0
    assert 59 < session.time_remaining <= 60


def test_a_call_that_raises_is_over_too() -> None:
    session = session_of()

    with pytest.raises(KeyError), session.in_use():
        raise KeyError
    assert session.in_flight == 0


def test_max_lifetime_counts_from_the_first_creation_and_ends_even_a_session_in_use() -> None:
    session = session_of(created_at=ago(100), max_lifetime=99, restored=True)
    with session.in_use():
        assert session.expired_because is EndReason.MAX_LIFETIME
        assert session.time_remaining == 0
    young = session_of(created_at=ago(100), max_lifetime=110)
    assert 9 < young.time_remaining <= 10
    assert not young.is_expired


def test_of_two_ends_the_earlier_is_the_reason() -> None:
    assert session_of(created_at=ago(9), last_accessed=ago(9), timeout=3, max_lifetime=6).expired_because == "idle"
    assert session_of(created_at=ago(9), last_accessed=ago(9), timeout=6, max_lifetime=3).expired_because == (
        "max_lifetime"
    )


def test_another_machines_clock_that_is_ahead_makes_it_no_younger_than_new() -> None:
    session = session_of(created_at=ago(-3_600), last_accessed=ago(-3_600), timeout=60, max_lifetime=100)
    assert session.time_remaining <= 60
    assert session.deadline <= time.monotonic() + 60


def test_times_are_shown_in_utc() -> None:
    elsewhere = datetime(2025, 3, 1, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    assert session_of(created_at=elsewhere).created_at.isoformat() == "2025-03-01T10:00:00+00:00"


def test_two_sessions_of_one_id_are_two_and_their_repr_tells_no_metadata() -> None:
    one, two = session_of(metadata={"from": "+15551234"}), session_of()
    assert one != two
    assert len({one, two}) == 2
    assert "+1555" not in repr(one)
