"""Expiry fires when it is due, for all sessions from one timer."""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta

from consumer.sessions import SessionEnded, SessionManager
from schemas.events import EndReason

from .processes import TODO, Child, Events, Remote, ended, opened, sid

LATENESS = 5.0
"""Seconds that say it was not the clean-up; ``scripts/bench`` measures how late it is."""

SLOW_SWEEP = {"session": {"cleanup_interval": 60}}


async def test_an_idle_session_expires_when_due_although_the_clean_up_is_slow(events: Events) -> None:
    async with SessionManager[Child](SLOW_SWEEP, on_event=events) as manager:
        long = await opened(manager, "long", timeout=60)
        session = await opened(manager, "a", timeout=0.2)
        due = session.deadline
        await ended(session)
        assert 0 <= time.monotonic() - due < LATENESS
        assert events.end_of(session) == SessionEnded(session, EndReason.IDLE, None)
        assert not long.has_ended
        async with asyncio.timeout(45):
            await session.process.gone()


async def test_a_touch_moves_the_end_away(events: Events) -> None:
    async with SessionManager[Child](SLOW_SWEEP, on_event=events) as manager:
        touched = await opened(manager, "touched", timeout=0.8)
        witness = await opened(manager, "witness", timeout=0.3)
        await ended(witness)
        assert manager.get_session(sid("touched")) is touched
        due = touched.deadline
        await ended(touched)
        assert 0 <= time.monotonic() - due < LATENESS
        assert touched.last_accessed > witness.last_accessed


async def test_a_running_call_never_expires_under_its_caller_and_idle_time_counts_from_its_end(events: Events) -> None:
    async with SessionManager[Child](SLOW_SWEEP, on_event=events) as manager:
        session = await opened(manager, "a", timeout=0.1)
        with session.in_use():
            for number in range(3):
                witness = await opened(manager, f"witness-{number}", timeout=0.15)
                await ended(witness)
                assert await session.process.ask("still?") == "still?"
        assert not session.has_ended
        due = session.deadline
        assert due > time.monotonic()
        await ended(session)
        assert 0 <= time.monotonic() - due < LATENESS
        assert session.end_reason == "idle"


async def test_max_lifetime_ends_a_session_even_with_a_call_in_flight(events: Events) -> None:
    async with SessionManager[Child]({"session": {"max_lifetime": 0.2}}, on_event=events) as manager:
        session = await opened(manager, "a")
        with session.in_use():
            await ended(session)
            assert session.end_reason == "max_lifetime"
        old = datetime.now(UTC) - timedelta(minutes=1)
        restored = await opened(manager, "b", restored=True, created_at=old)
        await ended(restored)
        assert events.end_of(restored).reason == "max_lifetime"


async def test_a_shorter_timeout_is_in_force_at_once(events: Events) -> None:
    async with SessionManager[Child](SLOW_SWEEP, on_event=events) as manager:
        session = await opened(manager, "a", timeout=60)
        assert manager.set_timeout(sid("a"), 0.1) is session
        await ended(session, within=0.1 + LATENESS)
        assert manager.set_timeout(sid("a"), 1) is None


async def test_who_asks_for_an_overdue_session_ends_it(events: Events) -> None:
    async with SessionManager[Child](SLOW_SWEEP, on_event=events) as manager:
        for ask in ("get", "list"):
            session = await opened(manager, ask, timeout=0.05)
            while not session.is_expired:
                pass  # the event loop is kept from noticing
            assert manager.get_service_session_count(TODO) == 0
            if ask == "get":
                assert manager.get_session(sid(ask)) is None
            else:
                assert manager.list_sessions() == {}
            assert events.end_of(session).reason == "idle"
            assert manager.peek(session.session_id) is None


async def test_a_thousand_sessions_expire_when_due_from_one_timer(events: Events) -> None:
    late: list[float] = []

    def on_event(event: object) -> None:
        if isinstance(event, SessionEnded):
            late.append(time.monotonic() - event.session.deadline)

    chance = random.Random(5)
    limits = {"session": {"max_sessions_per_service": 1_000, "max_total_sessions": 1_000, "cleanup_interval": 60}}
    async with SessionManager[Remote](limits, on_event=on_event) as manager:
        before = asyncio.all_tasks()
        sessions = [
            await manager.create_session(sid(f"c{i}"), TODO, Remote(), chance.uniform(0.8, 1.6)) for i in range(1_000)
        ]
        assert asyncio.all_tasks() == before, "there is no task per session"
        assert manager._expiry._deadlines.entries == 1_000
        for session in sessions:
            for _ in range(20):
                session.touch()
        assert manager._expiry._deadlines.entries == 1_000
        async with asyncio.timeout(45):
            await asyncio.gather(*(session.wait_ended() for session in sessions))
    late.sort()
    assert late[0] >= 0
    assert late[989] < LATENESS, f"p99 of the lateness is {late[989]:.3f} s"
