"""How sessions end: closed, dead, shut down; and what is told of it."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import ClassVar

import pytest

from consumer.sessions import ProcessExit, SessionEnded, SessionManager, session_manager
from schemas.events import EndReason

from .processes import SLOW_TO_STOP, TODO, Child, Events, Remote, ended, opened, sid

Manager = SessionManager[Child]


class Counted(Child):
    """Counts how many are being stopped at the same time."""

    now: ClassVar[int] = 0
    most: ClassVar[int] = 0

    async def stop(self) -> None:
        Counted.now += 1
        Counted.most = max(Counted.most, Counted.now)
        try:
            await super().stop()
        finally:
            Counted.now -= 1


class Tardy(Child):
    """Is dead for a while before it tells how it died, as when its stderr is still being read."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__(process)
        self.died = asyncio.Event()
        self.tell = asyncio.Event()

    async def before_telling(self) -> None:
        self.died.set()
        await self.tell.wait()


async def test_a_closed_session_is_gone_and_its_process_has_stopped(manager: Manager, events: Events) -> None:
    session = await opened(manager, "a")
    assert await manager.close_session(sid("a")) is True
    assert not session.is_alive
    assert manager.get_session(sid("a")) is None
    assert manager.peek(sid("a")) is None
    assert (session.has_ended, session.end_reason) == (True, "requested")
    assert events.end_of(session) == SessionEnded(session, EndReason.REQUESTED, None)
    assert await manager.close_session(sid("a")) is False
    assert len(events) == 2


async def test_the_end_is_told_before_the_process_has_stopped(events: Events) -> None:
    alive_then = []

    def on_event(event: object) -> None:
        events(event)  # type: ignore[arg-type]
        if isinstance(event, SessionEnded):
            alive_then.append((event.session.is_alive, manager.peek(event.session.session_id), manager.count()))

    async with Manager(on_event=on_event) as manager:
        await opened(manager, "a")
        await manager.close_session(sid("a"), EndReason.CALL_ENDED)
    assert alive_then == [(True, None, 0)]
    assert events.story() == [("a", "created"), ("a", "call_ended")]


async def test_of_closes_at_once_one_is_true_and_all_wait_for_the_process(manager: Manager) -> None:
    session = await opened(manager, "a", start=lambda: Child.start(*SLOW_TO_STOP))

    async def close() -> tuple[bool, bool]:
        return await manager.close_session(sid("a")), session.is_alive

    outcomes = await asyncio.gather(*(close() for _ in range(5)))
    assert sorted(outcomes) == [(False, False)] * 4 + [(True, False)]
    assert session.process.stops == 1


async def test_thirty_two_closes_are_under_way_at_once(manager: Manager) -> None:
    await asyncio.gather(*(opened(manager, f"c{i}", start=lambda: Counted.start(*SLOW_TO_STOP)) for i in range(32)))
    assert all(await asyncio.gather(*(manager.close_session(sid(f"c{i}")) for i in range(32))))
    assert Counted.most == 32


async def test_a_close_that_is_cancelled_still_ends_the_session(manager: Manager, events: Events) -> None:
    session = await opened(manager, "a", start=lambda: Child.start(*SLOW_TO_STOP))
    closing = asyncio.create_task(manager.close_session(sid("a")))
    await ended(session)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    async with asyncio.timeout(45):
        await session.process.gone()
    assert events.story() == [("a", "created"), ("a", "requested")]


async def test_a_close_during_the_opening_closes_what_was_opened(manager: Manager) -> None:
    opening = asyncio.create_task(opened(manager, "a"))
    await asyncio.sleep(0)
    assert manager.opening == 1
    assert await manager.close_session(sid("a"))
    assert (await opening).has_ended


async def test_a_process_that_dies_ends_its_session_at_once_and_tells_how(manager: Manager, events: Events) -> None:
    failing = await opened(manager, "a", start=lambda: Child.start("sh", "-c", "read x; echo boom >&2; exit 3"))
    killed = await opened(manager, "b")
    assert failing.process.process.stdin is not None
    failing.process.process.stdin.write(b"\n")
    killed.process.process.kill()
    await ended(failing)
    await ended(killed)
    assert events.end_of(failing).reason == events.end_of(killed).reason == "process_exit"
    assert events.end_of(failing).exit == failing.exit == ProcessExit(3, None, "boom\n")
    assert events.end_of(killed).exit == ProcessExit(None, 9, "")
    assert manager.count() == 0
    assert failing.process.stops <= 1


async def test_a_process_that_has_died_before_it_was_handed_over_ends_its_session(
    manager: Manager, events: Events
) -> None:
    process = await Child.start("true")
    await process.gone()
    session = await manager.create_session(sid("a"), TODO, process)
    await ended(session)
    assert events.story() == [("a", "created"), ("a", "process_exit")]


async def test_an_exit_notice_that_comes_after_the_end_changes_nothing(manager: Manager, events: Events) -> None:
    class Talkative(Child):
        """Tells of its exit although it was stopped, and more than once."""

        def on_exit(self, callback: Callable[[ProcessExit], None]) -> None:
            self.callback = callback

        async def before_telling(self) -> None:
            self.callback(ProcessExit(0, None, ""))
            self.callback(ProcessExit(1, None, ""))

    old = await opened(manager, "a", start=Talkative.start)
    new = await opened(manager, "a")
    async with asyncio.timeout(45):
        await old.process.gone()
    assert manager.get_session(sid("a")) is new
    assert manager.count() == 1
    dying = await opened(manager, "b", start=Talkative.start)
    dying.process.process.kill()
    await ended(dying)
    assert dying.exit == ProcessExit(0, None, "")
    assert events.story() == [
        ("a", "created"),
        ("a", "replaced"),
        ("a", "created"),
        ("b", "created"),
        ("b", "process_exit"),
    ]


async def test_a_dead_session_is_not_given_out_and_its_end_waits_for_the_exit_notice(
    manager: Manager, events: Events
) -> None:
    session = await opened(manager, "a", start=lambda: Tardy.start("sh", "-c", "echo last words >&2; exec cat"))
    tardy = session.process
    assert isinstance(tardy, Tardy)
    assert await tardy.ask("have you said them?")
    tardy.process.kill()
    async with asyncio.timeout(45):
        await tardy.died.wait()
    assert manager.get_session(sid("a")) is None
    assert manager.list_sessions() == {}
    assert manager.get_service_session_count(TODO) == 0
    assert not session.has_ended
    tardy.tell.set()
    await ended(session)
    assert session.exit == ProcessExit(None, 9, "last words\n")
    assert events.story() == [("a", "created"), ("a", "process_exit")]


async def test_a_server_that_dies_without_telling_is_found_by_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_manager, "EXIT_NOTICE_TIMEOUT", 0.05)
    events = Events()
    async with SessionManager[Remote]({"session": {"cleanup_interval": 0.05}}, on_event=events) as manager:
        session, _ = await manager.open_session(sid("a"), TODO, Remote.start)
        session.process.is_alive = False
        await ended(session)
        assert events.end_of(session) == SessionEnded(session, EndReason.PROCESS_EXIT, None)


async def test_a_stop_that_raises_is_logged_and_harms_nobody(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Child):
        async def stop(self) -> None:
            await super().stop()
            raise OSError("cannot stop")

    await opened(manager, "a", start=Failing.start)
    assert await manager.close_session(sid("a"))
    [record] = [record for record in caplog.records if record.message == "session.stop_failed"]
    assert vars(record)["session_id"] == "a"
    assert record.exc_info is not None


async def test_a_callback_that_raises_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def on_event(event: object) -> None:
        raise KeyError(type(event).__name__)

    async with Manager(on_event=on_event) as manager:
        session = await opened(manager, "a")
        assert manager.get_session(sid("a")) is session
        assert await manager.close_session(sid("a"))
        assert not session.is_alive
    failures = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert failures == ["session.event_callback_failed"] * 2


async def test_shutdown_ends_all_at_once_and_may_be_asked_for_again(events: Events) -> None:
    Counted.most = 0
    manager = Manager(on_event=events)
    await manager.start()
    sessions = [await opened(manager, f"c{i}", start=lambda: Counted.start(*SLOW_TO_STOP)) for i in range(8)]
    await asyncio.gather(manager.shutdown(), manager.shutdown(EndReason.REQUESTED))
    assert Counted.most == 8
    assert not any(session.is_alive for session in sessions)
    assert [event.reason for event in events if isinstance(event, SessionEnded)] == ["worker_shutdown"] * 8
    await manager.shutdown()
    assert len(events) == 16


async def test_a_cancelled_shutdown_has_ended_all_sessions_and_can_be_waited_for_again(events: Events) -> None:
    manager = Manager(on_event=events)
    session = await opened(manager, "a", start=lambda: Child.start(*SLOW_TO_STOP))
    leaving = asyncio.create_task(manager.shutdown())
    await ended(session)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert session.is_alive
    await manager.shutdown()
    assert not session.is_alive


async def test_shutdown_waits_for_processes_of_sessions_that_ended_before(events: Events) -> None:
    manager = Manager(on_event=events)
    session = await opened(manager, "a", start=lambda: Child.start(*SLOW_TO_STOP))
    await opened(manager, "a")
    assert session.is_alive
    await manager.shutdown()
    assert not session.is_alive


async def test_sessions_are_listed_as_signalwire_lists_them(manager: Manager) -> None:
    session = await opened(manager, "a", timeout=60, metadata={"tenant": "acme"})
    await opened(manager, "b")
    listed = manager.list_sessions()
    assert list(listed) == ["a", "b"]
    shown = listed[sid("a")]
    assert 59 < shown.pop("time_remaining") <= 60
    assert shown == {
        "service_name": "todo",
        "created_at": session.created_at.isoformat(),
        "last_accessed": session.last_accessed.isoformat(),
        "timeout": 60,
        "metadata": {"tenant": "acme"},
    }
    assert datetime.fromisoformat(shown["created_at"]).utcoffset() == timedelta(0)


async def test_getting_touches_and_peeking_does_not(manager: Manager) -> None:
    session = await opened(manager, "a")
    accessed = session.last_accessed
    assert manager.peek(sid("a")) is session
    assert session.last_accessed == accessed
    assert manager.get_session(sid("a")) is session
    assert session.last_accessed > accessed
