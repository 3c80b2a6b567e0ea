"""Limits are reserved before a process is started."""

import asyncio
from types import SimpleNamespace

import pytest

from consumer.sessions import SessionLimits, SessionManager
from schemas.errors import LimitReached, ServiceSessionLimit, SessionLimit
from schemas.ids import ServiceName

from .processes import TODO, Child, Events, Gate, opened, sid

OTHER = ServiceName("other")


def limited(total: int, per_service: int = 100, *, events: Events | None = None) -> SessionManager[Child]:
    section = {"max_total_sessions": total, "max_sessions_per_service": per_service}
    return SessionManager({"session": section}, on_event=events)


def test_signalwires_configuration_is_read_as_it_is() -> None:
    limits = SessionLimits.from_config(
        {
            "session": {"default_timeout": 60, "max_sessions_per_service": 7, "unknown": 1},
            "services": {"todo": {"command": ["x"]}, "big": {"command": ["y"], "max_sessions": 90}},
            "server": {"port": 8080},
        }
    )
    assert limits == SessionLimits(default_timeout=60, max_sessions_per_service=7, per_service={"big": 90})
    assert limits.max_sessions_of(TODO) == 7
    assert limits.max_sessions_of(ServiceName("big")) == 90
    assert limits.max_total_sessions == 500
    assert limits.max_lifetime == 14_400


def test_settings_objects_limits_and_nothing_are_read_too() -> None:
    settings = SimpleNamespace(
        default_timeout=1, cleanup_interval=2, max_sessions_per_service=3, max_total_sessions=4, max_lifetime=None
    )
    assert SessionLimits.from_config(settings) == SessionLimits(1, 2, 3, 4, None)
    assert SessionLimits.from_config(SessionLimits(5)) == SessionLimits(5)
    assert SessionLimits.from_config(None) == SessionLimits()


@pytest.mark.parametrize(
    "wrong", [{"default_timeout": 0}, {"cleanup_interval": -1}, {"max_lifetime": 0}, {"max_total_sessions": -1}]
)
def test_limits_that_make_no_sense_are_refused_by_name(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SessionLimits.from_config({"session": wrong})


async def test_of_fifty_openings_at_once_ten_get_a_place_and_the_others_start_nothing() -> None:
    gate = Gate()
    async with limited(total=10) as manager:
        openings = [asyncio.create_task(opened(manager, f"c{i}", start=gate.start)) for i in range(50)]
        async with asyncio.timeout(45):
            await asyncio.wait(openings[10:])
        assert gate.starts == 10
        assert manager.opening == manager.count() == manager.count(TODO) == 10
        assert len(manager.sessions) == 0
        gate.open.set()
        results = await asyncio.gather(*openings, return_exceptions=True)
        refused = [result for result in results if isinstance(result, SessionLimit)]
        assert len(refused) == 40
        assert refused[0].retryable
        assert isinstance(refused[0], RuntimeError)
        assert refused[0].details == {"sessions": 10, "limit": 10}
        assert manager.opening == 0
        assert manager.count() == len(manager.sessions) == len(gate.started) == 10


async def test_one_full_service_leaves_room_for_another() -> None:
    async with limited(total=3, per_service=2) as manager:
        await opened(manager, "a")
        await opened(manager, "b")
        with pytest.raises(ServiceSessionLimit) as refused:
            await opened(manager, "c")
        assert refused.value.details == {"service_name": "todo", "sessions": 2, "limit": 2}
        await opened(manager, "c", OTHER)
        with pytest.raises(SessionLimit):
            await opened(manager, "d", OTHER)
        assert (manager.count(), manager.count(TODO), manager.count(OTHER)) == (3, 2, 1)
        assert (manager.get_service_session_count(TODO), manager.get_service_session_count(OTHER)) == (2, 1)
        await manager.close_session(sid("a"))
        await opened(manager, "d")


async def test_a_start_that_fails_gives_its_place_back() -> None:
    async def fail() -> Child:
        raise OSError("no such program")

    async with limited(total=1) as manager:
        with pytest.raises(OSError, match="no such program"):
            await opened(manager, "a", start=fail)
        assert manager.count() == manager.opening == 0
        await opened(manager, "a")


async def test_a_session_can_be_replaced_when_everything_is_full() -> None:
    events = Events()
    async with limited(total=1, per_service=1, events=events) as manager:
        old = await opened(manager, "a")
        new = await opened(manager, "a")
        assert new is not old
        assert manager.count() == 1
        assert events.story() == [("a", "created"), ("a", "replaced"), ("a", "created")]
        taken_over = await manager.create_session(sid("a"), OTHER, await Child.start())
        assert manager.sessions == {"a": taken_over}


async def test_nobody_gets_the_place_of_a_session_that_is_being_replaced() -> None:
    gate = Gate()
    async with limited(total=1) as manager:
        await opened(manager, "a")
        replacing = asyncio.create_task(opened(manager, "a", start=gate.start))
        async with asyncio.timeout(45):
            await gate.reached.wait()
        with pytest.raises(SessionLimit):
            await opened(manager, "b")
        gate.open.set()
        await replacing


async def test_a_refused_replacement_leaves_the_old_session_and_a_given_process_alone() -> None:
    async with limited(total=5, per_service=1) as manager:
        await opened(manager, "full", OTHER)
        old = await opened(manager, "a")
        mine = await Child.start()
        with pytest.raises(LimitReached):
            await manager.create_session(sid("a"), OTHER, mine)
        with pytest.raises(LimitReached):
            await opened(manager, "a", OTHER)
        assert manager.get_session(sid("a")) is old
        assert await old.process.ask("still here?") == "still here?"
        assert mine.is_alive
        assert mine.stops == 0
        await mine.stop()
