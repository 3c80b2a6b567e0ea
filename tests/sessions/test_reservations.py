"""Places and processes that are held for sessions which may be opened, or not."""

import asyncio
import random

import pytest

from consumer.sessions import SessionManager
from schemas.errors import ServiceSessionLimit, SessionLimit, ShuttingDown, StartFailed
from schemas.ids import ServiceName

from .processes import TODO, Child, Events, Gate, opened

Manager = SessionManager[Child]


async def start_or_clear_up() -> Child:
    """As a start has to be: when it is cancelled, it ends what it has begun."""
    starting = asyncio.create_task(Child.start())
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await (await starting).stop()
        raise


async def none_is_started() -> Child:
    raise AssertionError("the reserved process was there")


async def test_a_session_gets_the_place_and_the_process_that_were_reserved(manager: Manager, events: Events) -> None:
    reserved = manager.reserve(TODO, Child.start)
    assert (manager.count(), manager.count(TODO), events) == (1, 1, [])
    process = await reserved.starting
    session = await opened(manager, "a", TODO, none_is_started, reserved=reserved)
    assert session.process is process
    assert reserved.kept
    assert (manager.count(), events.story()) == (1, [("a", "created")])
    reserved.give_back()
    assert session.is_alive
    assert manager.count() == 1


async def test_an_opening_waits_for_a_process_that_is_on_its_way(manager: Manager) -> None:
    gate = Gate()
    reserved = manager.reserve(TODO, gate.start)
    opening = asyncio.create_task(opened(manager, "a", TODO, none_is_started, reserved=reserved))
    await gate.reached.wait()
    gate.open.set()
    assert (await opening).process is gate.started[0]
    assert gate.starts == 1


async def test_what_is_not_needed_is_stopped_and_its_place_is_free() -> None:
    async with Manager({"session": {"max_total_sessions": 1}}) as manager:
        reserved = manager.reserve(TODO, Child.start)
        with pytest.raises(SessionLimit):
            manager.reserve(TODO, none_is_started)
        with pytest.raises(SessionLimit):
            await opened(manager, "a", TODO, none_is_started)
        process = await reserved.starting
        reserved.give_back()
        reserved.give_back()
        assert manager.count() == 0
        await process.gone()
        assert process.stops == 1
        await opened(manager, "a")


async def test_a_place_of_a_service_is_reserved() -> None:
    async with Manager({"services": {"todo": {"max_sessions": 1}}}) as manager:
        reserved = manager.reserve(TODO, Child.start)
        with pytest.raises(ServiceSessionLimit):
            manager.reserve(TODO, none_is_started)
        other = manager.reserve(ServiceName("other"), Child.start)
        await opened(manager, "a", reserved=reserved)
        other.give_back()


async def test_who_takes_a_process_back_keeps_it(manager: Manager) -> None:
    shelf: list[Child] = []

    def take_back(process: Child) -> bool:
        shelf.append(process)
        return True

    reserved = manager.reserve(TODO, Child.start, take_back)
    process = await reserved.starting
    reserved.give_back()
    assert shelf == [process]
    assert (process.stops, process.is_alive) == (0, True)
    await process.stop()


async def test_given_back_while_it_starts_it_is_cancelled(manager: Manager) -> None:
    gate = Gate()
    reserved = manager.reserve(TODO, gate.start)
    await gate.reached.wait()
    reserved.give_back()
    assert manager.count() == 0
    await asyncio.wait({reserved.starting})
    assert reserved.starting.cancelled()


async def test_a_start_that_ends_well_though_it_was_cancelled_is_stopped(manager: Manager) -> None:
    begun = asyncio.Event()
    processes: list[Child] = []

    async def stubborn() -> Child:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            processes.append(await Child.start())
        return processes[0]

    reserved = manager.reserve(TODO, stubborn)
    await begun.wait()
    reserved.give_back()
    await asyncio.wait({reserved.starting})
    await processes[0].gone()
    assert processes[0].stops == 1


async def test_a_process_that_dies_gives_its_place_back_and_the_session_another_one(manager: Manager) -> None:
    reserved = manager.reserve(TODO, Child.start)
    process = await reserved.starting
    process.process.kill()
    await process.gone()
    assert manager.count() == 0
    session = await opened(manager, "a", reserved=reserved)
    assert session.process is not process
    assert session.is_alive
    assert not reserved.kept


async def test_a_start_that_fails_ahead_is_tried_again_for_the_session(manager: Manager) -> None:
    tries = 0

    async def second_time() -> Child:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise StartFailed("not yet")
        return await Child.start()

    reserved = manager.reserve(TODO, second_time)
    await asyncio.wait({reserved.starting})
    assert manager.count() == 0
    assert (await opened(manager, "a", reserved=reserved)).is_alive


async def test_a_start_that_fails_under_its_session_fails_it(manager: Manager) -> None:
    gate = asyncio.Event()

    async def failing() -> Child:
        await gate.wait()
        raise StartFailed("no such server")

    reserved = manager.reserve(TODO, failing)
    opening = asyncio.create_task(opened(manager, "a", reserved=reserved))
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(StartFailed, match="no such server"):
        await opening
    assert manager.count() == 0


async def test_what_is_reserved_for_a_session_that_is_kept_is_given_back(manager: Manager) -> None:
    session = await opened(manager, "a")
    reserved = manager.reserve(TODO, Child.start)
    process = await reserved.starting
    assert await opened(manager, "a", reserved=reserved, if_exists="keep") is session
    await process.gone()
    assert manager.count() == 1


async def test_an_opening_that_is_cancelled_cancels_the_start(manager: Manager) -> None:
    gate = Gate()
    reserved = manager.reserve(TODO, gate.start)
    opening = asyncio.create_task(opened(manager, "a", reserved=reserved))
    await gate.reached.wait()
    opening.cancel()
    await asyncio.wait({opening, reserved.starting})
    assert opening.cancelled()
    assert reserved.starting.cancelled()
    assert manager.count() == 0


@pytest.mark.parametrize("started", [True, False])
async def test_a_shutdown_gives_everything_back(started: bool) -> None:
    taken: list[Child] = []
    gate = Gate()

    def take_back(process: Child) -> bool:
        taken.append(process)
        return True

    async with Manager() as manager:
        reserved = manager.reserve(TODO, gate.start, take_back)
        opening = asyncio.create_task(opened(manager, "a", reserved=manager.reserve(TODO, gate.start)))
        await gate.reached.wait()
        if started:
            gate.open.set()
            await asyncio.wait({reserved.starting})
    assert taken == []  # nobody waits for a call any more
    assert manager.count() == 0
    assert not any(child.is_alive for child in gate.started)
    await asyncio.wait({opening})
    with pytest.raises(ShuttingDown):
        manager.reserve(TODO, none_is_started)


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_when_nothing_is_left_and_no_process_serves_twice(seed: int, events: Events) -> None:
    chance = random.Random(seed)
    served: list[Child] = []

    async def one(manager: Manager, number: int) -> None:
        reserved = manager.reserve(TODO, start_or_clear_up)
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(chance.choice([0, 0, 0.002]))
        match chance.choice(["open", "give back", "die", "cancel"]):
            case "open":
                served.append((await opened(manager, f"{number}", start=start_or_clear_up, reserved=reserved)).process)
            case "give back":
                reserved.give_back()
            case "die":
                await asyncio.wait({reserved.starting})
                reserved.starting.result().process.kill()
                served.append((await opened(manager, f"{number}", start=start_or_clear_up, reserved=reserved)).process)
            case "cancel":
                opening = asyncio.create_task(opened(manager, f"{number}", start=start_or_clear_up, reserved=reserved))
                await asyncio.sleep(chance.choice([0, 0.001, 0.003]))
                opening.cancel()
                await asyncio.wait({opening})

    async with Manager(on_event=events) as manager:
        await asyncio.gather(*(one(manager, number) for number in range(12)))
        assert len(set(served)) == len(served)
        assert manager.count() == len(manager.sessions)
    assert manager.count() == 0
