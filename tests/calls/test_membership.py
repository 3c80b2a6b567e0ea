"""Who is asked for a report before somebody is told of the workers."""

import asyncio
from datetime import UTC, datetime

import pytest

from consumer.calls.cluster.membership import Presence
from schemas.ids import ServiceName, WorkerId
from schemas.internal import PresenceReport
from schemas.sessions import ServiceLoad, WorkerInfo
from tests.calls.presences import presence_of, report_of
from tests.virtual_time import in_virtual_time, passes

ME = WorkerId("me")


class Asked(Presence):
    """A table of workers that counts how often it has everybody asked for a report."""

    def __init__(self) -> None:
        super().__init__(5, ME, report_soon=lambda: None, request_presence=self._count, restart=lambda _: None)
        self.times = 0

    def _count(self) -> None:
        self.times += 1
        self.asked()


def report(worker: str, sessions: int) -> PresenceReport:
    load = ServiceLoad(sessions=sessions, max_sessions=5)
    return PresenceReport(
        worker=WorkerInfo(
            worker_id=WorkerId(worker), host="h", pid=1, version="1", state="ready", started_at=datetime.now(UTC),
            sessions=sessions, capacity=10, services={ServiceName("echo"): load},
        )
    )  # fmt: skip


@pytest.fixture
async def presence() -> Asked:
    made = Asked()
    made.heard(report("me", 0), ME)
    return made


async def test_who_tells_of_now_reports_its_own_last_change_first(presence: Asked):
    telling = asyncio.create_task(presence.refreshed(0))
    await asyncio.sleep(0)
    assert presence.times == 1
    assert not telling.done()
    presence.heard(report("me", 1), ME)
    await telling
    assert [worker.sessions for worker in presence.workers()] == [1]


async def test_who_may_tell_of_a_while_ago_asks_nobody_while_it_has_heard_them(presence: Asked):
    presence.heard(report("other", 2), ME)
    await presence.refreshed()
    assert presence.times == 0


async def test_who_tells_of_now_hears_everybody_that_reports(presence: Asked):
    presence.heard(report("other", 2), ME)
    telling = asyncio.create_task(presence.refreshed(0))
    await asyncio.sleep(0)
    presence.heard(report("other", 3), ME)
    await asyncio.sleep(0)
    assert not telling.done()
    presence.heard(report("me", 1), ME)
    await telling
    assert [worker.sessions for worker in presence.workers()] == [1, 3]


async def test_a_report_that_was_sent_before_our_queue_was_bound_is_not_waited_for():
    presence = presence_of(ME)
    presence.reported()  # while the link is being attached: it is routed to the others, and not to us
    presence.bound()
    hearing = asyncio.create_task(presence.heard_out())
    await asyncio.sleep(0)  # it waits for a report of ours that is sent from now on
    presence.reported()
    assert not hearing.done()
    presence.echoed()
    async with asyncio.timeout(10):
        await hearing


@in_virtual_time
async def test_whose_answer_is_not_read_drops_its_link_before_others_take_it_for_dead():
    dropped: list[str] = []
    presence = presence_of(ME, grace=5, restart=dropped.append)
    presence.bound()
    presence.asked()
    await passes(5)
    assert not dropped, "the link is being attached: nothing has come back yet"
    presence.echoed()
    for _ in range(3):
        presence.asked()
        await passes(3.4)
        presence.answered()
        await passes(5)
    assert not dropped, "RabbitMQ has read its answers"
    presence.asked()
    await passes(3.4)
    presence.asked()  # it is late for the first request
    assert not dropped
    await passes(0.2)
    assert len(dropped) == 1
    presence.deafened()
    presence.asked()
    await passes(5)
    assert len(dropped) == 1


@in_virtual_time
async def test_a_lost_link_has_no_answer_to_wait_for():
    dropped: list[str] = []
    presence = presence_of(ME, grace=5, restart=dropped.append)
    presence.echoed()
    presence.asked()
    presence.deafened()
    await passes(5)
    assert not dropped


@in_virtual_time
async def test_a_silent_worker_is_unaccounted_for_while_it_hangs_and_until_its_sessions_are_lost():
    presence, other = presence_of(ME, grace=5), WorkerId("other")
    presence.heard(report("other", 1), ME)
    assert presence.unaccounted() == set()
    presence.asked()
    await passes(3.9)
    assert presence.unaccounted() == set(), "it may still answer"
    await passes(0.2)
    assert presence.unaccounted() == {other}
    for _ in range(30):
        await passes(1)
        presence.held(other)
    assert presence.unaccounted() == {other}, "somebody consumes its inbox"
    await passes(1 + 5)  # in its inbox, and among the orphans
    assert presence.unaccounted() == {other}, "its sessions are reported lost now"
    await passes(6)
    assert presence.unaccounted() == set()
    presence.heard(report("other", 1), ME)
    presence.asked()
    await passes(4.1)
    presence.heard(report("other", 1), ME)
    assert presence.unaccounted() == set(), "it was only away"
    presence.asked()
    await passes(4.1)
    presence.heard(report_of(other, state="stopped"), ME)
    assert presence.unaccounted() == set(), "it has left"
