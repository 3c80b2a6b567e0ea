"""Opening sessions, and what becomes of an opening that fails, is cancelled or comes twice."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from consumer.sessions import Session, SessionManager
from schemas.errors import SessionExists, ShuttingDown, StartFailed

from .processes import TODO, Child, Events, Gate, ended, opened, sid

Manager = SessionManager[Child]


class Tidying:
    """A start that never comes to its end, takes its time to tidy up when cancelled, and may have a process then."""

    def __init__(self, process: Child | None = None) -> None:
        self.process = process
        self.begun, self.cancelled, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.ended = False

    async def __call__(self) -> Child:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            await self.may_end.wait()
            self.ended = True
            if self.process is None:
                raise
        assert self.process is not None
        return self.process


async def test_a_process_that_runs_already_can_be_made_a_session(manager: Manager, events: Events) -> None:
    process = await Child.start()
    session = await manager.create_session(sid("a"), TODO, process, 60, {"tenant": "acme"})
    assert (session.process, session.timeout, session.metadata) == (process, 60, {"tenant": "acme"})
    assert (session.max_lifetime, session.restored) == (14_400, False)
    assert manager.get_session(sid("a")) is session
    replacing = await manager.create_session(sid("a"), TODO, await Child.start(), 0)
    assert replacing.timeout == 300
    assert session.has_ended
    assert events.story() == [("a", "created"), ("a", "replaced"), ("a", "created")]
    await process.gone()


async def test_a_restored_session_is_as_old_as_its_call(manager: Manager) -> None:
    before = datetime.now(UTC) - timedelta(hours=1)
    session = await opened(manager, "a", restored=True, created_at=before)
    assert session.restored
    assert session.created_at == before
    assert session.last_accessed > before + timedelta(minutes=59)


async def test_the_duration_of_the_start_is_recorded(manager: Manager, events: Events) -> None:
    session = await opened(manager, "a")
    session.record.start_kind = "cold"
    await manager.close_session(sid("a"))
    summary = events.end_of(session).session.record.summary()
    assert summary["start"] == "cold"
    assert 0 < summary["start_duration"] < 5


async def test_keep_tells_that_it_kept_and_starts_nothing(manager: Manager) -> None:
    first = await manager.open_session(sid("a"), TODO, Child.start, if_exists="keep")
    gate = Gate()
    accessed = first.session.last_accessed
    second = await manager.open_session(sid("a"), TODO, gate.start, if_exists="keep")
    assert first.created
    assert second.session.last_accessed > accessed
    assert second == (first.session, False)
    assert gate.starts == 0


async def test_reject_raises_and_leaves_the_session(manager: Manager) -> None:
    session = await opened(manager, "a")
    with pytest.raises(SessionExists) as refused:
        await opened(manager, "a", if_exists="reject")
    assert refused.value.details == {"session_id": "a"}
    assert manager.get_session(sid("a")) is session


async def test_openings_of_one_id_take_turns_and_those_of_others_do_not_wait(manager: Manager) -> None:
    gate = Gate()
    keeping = [
        asyncio.create_task(manager.open_session(sid("a"), TODO, gate.start, if_exists="keep")) for _ in range(10)
    ]
    async with asyncio.timeout(45):
        await gate.reached.wait()
        await opened(manager, "b")
        gate.open.set()
        outcomes = await asyncio.gather(*keeping)
    assert gate.starts == 1
    assert sum(outcome.created for outcome in outcomes) == 1
    assert len({outcome.session for outcome in outcomes}) == 1
    assert len(manager._turns) == 0


async def test_a_cancelled_opening_waits_for_its_start_and_gives_the_place_back(manager: Manager) -> None:
    start = Tidying()
    opening = asyncio.create_task(opened(manager, "a", start=start))
    async with asyncio.timeout(45):
        await start.begun.wait()
        opening.cancel()
        await start.cancelled.wait()
        assert manager.count() == 1
        start.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert start.ended
    assert manager.count() == manager.opening == 0


async def test_a_start_is_cancelled_only_once_and_shutdown_waits_for_it(events: Events) -> None:
    manager = Manager(on_event=events)
    start = Tidying(await Child.start())
    opening = asyncio.create_task(opened(manager, "a", start=start))
    async with asyncio.timeout(45):
        await start.begun.wait()
        opening.cancel()
        await start.cancelled.wait()
        opening.cancel()  # impatient: this one does not wait for the start
        with pytest.raises(asyncio.CancelledError):
            await opening
        leaving = asyncio.create_task(manager.shutdown())
        await asyncio.sleep(0)
        assert not start.ended
        assert not leaving.done()
        start.may_end.set()
        await leaving
    assert start.ended
    assert start.process is not None
    assert not start.process.is_alive
    assert events == []


async def test_a_process_that_came_although_its_start_was_cancelled_is_stopped(
    manager: Manager, events: Events
) -> None:
    process = await Child.start()
    start = Tidying(process)
    opening = asyncio.create_task(opened(manager, "a", start=start))
    async with asyncio.timeout(45):
        await start.begun.wait()
        opening.cancel()
        start.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await process.gone()
    assert process.stops == 1
    assert events == []


@pytest.mark.parametrize("impatient", [False, True], ids=["once", "twice"])
async def test_a_start_that_ends_in_the_moment_of_the_cancellation_leaves_no_process(
    manager: Manager, events: Events, impatient: bool
) -> None:
    process = await Child.start()
    done = asyncio.Event()

    async def start() -> Child:
        done.set()
        return process

    opening = asyncio.create_task(opened(manager, "a", start=start))
    async with asyncio.timeout(45):
        await done.wait()  # the start has returned, and its opener has not been told yet
        assert manager.count() == 1
        opening.cancel()
        if impatient:
            await asyncio.sleep(0)
            opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await process.gone()
    assert events == []
    assert manager.count() == manager.opening == 0


async def test_a_start_that_was_cancelled_from_within_has_failed(manager: Manager) -> None:
    async def start() -> Child:
        raise asyncio.CancelledError

    with pytest.raises(StartFailed):
        await opened(manager, "a", start=start)
    assert manager.count() == 0


async def test_a_replacement_whose_start_fails_leaves_no_session(manager: Manager, events: Events) -> None:
    async def start() -> Child:
        raise OSError

    await opened(manager, "a")
    with pytest.raises(OSError):  # noqa: PT011 - a start may raise what it likes
        await opened(manager, "a", start=start)
    assert manager.peek(sid("a")) is None
    assert events.story() == [("a", "created"), ("a", "replaced")]


async def test_shutdown_calls_off_what_is_being_opened(events: Events) -> None:
    manager = Manager(on_event=events)
    gate = Gate()
    openings = [asyncio.create_task(opened(manager, f"c{i}", start=gate.start)) for i in range(5)]
    waiting = asyncio.create_task(opened(manager, "c0"))
    async with asyncio.timeout(45):
        await gate.reached.wait()
        await manager.shutdown()
        results = await asyncio.gather(*openings, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ShuttingDown] * 6
    assert events == []
    assert manager.count() == manager.opening == 0


async def test_shutdown_stops_a_process_whose_start_has_ended_and_whose_opener_does_not_know(events: Events) -> None:
    manager = Manager(on_event=events)
    process = await Child.start()
    leaving: list[asyncio.Task[None]] = []

    async def start() -> Child:
        # The shutdown's first step comes after the start's task is done, and before its waiter is woken.
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: leaving.append(loop.create_task(manager.shutdown())))
        return process

    async with asyncio.timeout(45):
        with pytest.raises(ShuttingDown):
            await opened(manager, "a", start=start)
        await leaving[0]
    assert not process.is_alive
    assert process.stops == 1
    assert events == []


async def test_nothing_is_opened_after_the_shutdown() -> None:
    manager = Manager()
    await manager.shutdown()
    process = await Child.start()
    with pytest.raises(ShuttingDown):
        await manager.create_session(sid("a"), TODO, process)
    with pytest.raises(ShuttingDown):
        await opened(manager, "a")
    with pytest.raises(ShuttingDown):
        await manager.start()
    assert process.is_alive
    await process.stop()


@pytest.mark.parametrize("timeout", [-1, float("nan")])
async def test_a_timeout_that_is_none_is_refused(manager: Manager, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        await opened(manager, "a", timeout=timeout)
    session: Session[Child] = await opened(manager, "a")
    with pytest.raises(ValueError, match="timeout"):
        manager.set_timeout(sid("a"), timeout)
    assert session.timeout == 300


async def test_a_dead_session_is_not_kept(manager: Manager, events: Events) -> None:
    old = await opened(manager, "a")
    old.process.process.kill()
    async with asyncio.timeout(45):
        await old.process.process.wait()
    new, created = await manager.open_session(sid("a"), TODO, Child.start, if_exists="keep")
    assert created
    assert await new.process.ask("you are new") == "you are new"
    await ended(old)
    assert events.end_of(old).reason == "process_exit"
    assert events.end_of(old).exit is not None
