"""Presence and admission: who is there, who has room, and who waits for it."""

import asyncio
from datetime import UTC, datetime

import pytest

from consumer.calls.placement.admission import Admission
from consumer.calls.placement.strategy import choose
from schemas.errors import Capacity, ServiceSessionLimit
from schemas.ids import ServiceName, WorkerId
from schemas.internal import PresenceReport
from schemas.sessions import ServiceLoad, WorkerInfo
from tests.calls.presences import presence_of

ME = WorkerId("placer")
ECHO, TODO = ServiceName("echo"), ServiceName("todo")


def report(worker, *, sessions=0, capacity=10, state="ready", placements=None, **services):
    loads = {
        name: load if isinstance(load, ServiceLoad) else ServiceLoad(sessions=load, max_sessions=5)
        for name, load in (services or {"echo": 0}).items()
    }
    return PresenceReport(
        worker=WorkerInfo(
            worker_id=WorkerId(worker), host="h", pid=1, version="1", state=state, started_at=datetime.now(UTC),
            sessions=sessions, capacity=capacity, services=loads,
        ),
        placements=placements or {},
    )  # fmt: skip


@pytest.fixture
def presence():
    return presence_of(ME)


def soon(seconds=0.05):
    return asyncio.get_running_loop().time() + seconds


async def test_the_worker_with_most_room_is_chosen(presence):
    presence.heard(report("a", echo=3), ME)
    presence.heard(report("b", echo=1), ME)
    assert choose(presence.ready(), [ECHO]) == "b"
    assert choose(presence.ready(), [ECHO], without={WorkerId("b")}) == "a"


async def test_warm_processes_count_as_room(presence):
    presence.heard(report("a", echo=ServiceLoad(sessions=3, max_sessions=5, warm=4)), ME)
    presence.heard(report("b", echo=1), ME)
    assert choose(presence.ready(), [ECHO]) == "a"


async def test_a_draining_a_silent_and_a_foreign_worker_are_not_chosen():
    presence = presence_of(ME, grace=0.01)
    presence.heard(report("a", state="draining"), ME)
    presence.heard(report("b", todo=0), ME)
    assert choose(presence.ready(), [ECHO]) is None
    presence.heard(report("c"), ME)
    assert choose(presence.ready(), [ECHO]) == "c"
    presence.asked()
    async with asyncio.timeout(45):
        while presence.alive(WorkerId("c")):
            await asyncio.sleep(0.005)
        while choose(presence.ready(), [ECHO]) is not None:
            await asyncio.sleep(0.005)
    presence.heard(report("c"), ME)
    assert presence.alive(WorkerId("c"))
    assert choose(presence.ready(), [ECHO]) == "c"


async def test_placements_count_until_the_worker_reports_them(presence):
    presence.heard(report("a", echo=3), ME)
    presence.place(WorkerId("a"), [ECHO])
    number = presence.place(WorkerId("a"), [ECHO])
    assert choose(presence.ready(), [ECHO]) is None
    presence.heard(report("a", echo=4, placements={ME: number - 1}), ME)
    assert choose(presence.ready(), [ECHO]) is None
    presence.heard(report("a", echo=4, placements={ME: number}), ME)
    assert choose(presence.ready(), [ECHO]) == "a"


async def test_a_worker_that_stopped_is_forgotten(presence):
    presence.heard(report("a"), ME)
    presence.heard(report("a", state="stopped"), ME)
    assert list(presence.workers()) == []


async def test_every_service_of_a_call_must_have_room_on_one_worker(presence):
    presence.heard(report("a", echo=5, todo=0), ME)
    presence.heard(report("b", echo=0, todo=5), ME)
    assert choose(presence.ready(), [ECHO, TODO]) is None
    presence.heard(report("c", capacity=1, echo=0, todo=0), ME)
    assert choose(presence.ready(), [ECHO, TODO]) is None
    presence.heard(report("d", capacity=2, echo=0, todo=0), ME)
    assert choose(presence.ready(), [ECHO, TODO]) == "d"


async def test_room_is_given_to_those_who_wait_longest(presence):
    admission = Admission(presence)
    presence.heard(report("a", echo=5), ME)
    waiting = [asyncio.create_task(admission.admit((ECHO,), until=soon(10))) for _ in range(3)]
    await asyncio.sleep(0)
    presence.heard(report("a", echo=3), ME)
    admission.look()
    async with asyncio.timeout(45):
        await asyncio.gather(*waiting[:2])
    last = waiting[2]
    assert not last.done()
    presence.heard(report("a", echo=4, placements={ME: 2}), ME)
    admission.look()
    assert (await last)[0] == "a"


async def test_a_full_service_and_a_full_cluster_are_told_apart(presence):
    admission = Admission(presence)
    presence.heard(report("a", echo=5), ME)
    with pytest.raises(ServiceSessionLimit, match="echo"):
        await admission.admit((ECHO,), until=soon())
    presence.heard(report("a", sessions=10, echo=1), ME)
    with pytest.raises(Capacity):
        await admission.admit((ECHO,), until=soon())


async def test_ten_thousand_who_wait_cost_a_report_nothing(presence):
    admission = Admission(presence)
    presence.heard(report("a", echo=5), ME)
    waiting = [asyncio.create_task(admission.admit((ECHO,), until=soon(60))) for _ in range(10_000)]
    await asyncio.sleep(0)
    looked = 0
    ready = presence.ready

    def counted():
        nonlocal looked
        looked += 1
        return ready()

    presence.ready = counted
    presence.heard(report("a", echo=5), ME)
    admission.look()
    assert looked == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert admission._lines == {}
