"""What workers remember of what comes from outside has a bound, and the oldest goes first."""

import time
import tracemalloc
from datetime import UTC, datetime

import pytest

from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names
from consumer.calls.cluster.ended_calls import REMEMBER, Endings
from consumer.calls.cluster.membership import KEPT_IN_ANY_CASE, MOST_WORKERS
from consumer.calls.placement.strategy import choose
from consumer.concurrency.expiring_dict import ExpiringDict
from schemas.ids import MAX_ID_BYTES, CallId, ServiceName, SessionId, WorkerId
from schemas.internal import ClosedSessions, EndedCalls, PresenceReport
from schemas.sessions import WorkerInfo
from tests.calls.presences import presence_of

NAMES = Names("mcp")
MOST_ENDED = 100_000
MOST_BYTES = 64 << 20
"""What a worker keeps of ended calls at most, as ``docs/operations/security.md`` says."""


async def test_of_more_than_a_memory_holds_the_oldest_is_forgotten():
    memory: ExpiringDict[int] = ExpiringDict(keep=60, most=3)
    for number in range(3):
        memory.set(f"k-{number}", number)
    memory.set("k-0", 0)  # is the newest now
    memory.set("k-3", 3)
    assert memory.items() == [("k-2", 2), ("k-0", 0), ("k-3", 3)]
    assert memory.get("k-1") is None


async def test_a_memory_forgets_what_was_set_too_long_ago():
    memory: ExpiringDict[int] = ExpiringDict(keep=0.0, most=3)
    memory.set("k", 1)
    assert memory.get("k") is None
    assert memory.items() == []


def told(worker: str, ended: dict[str, float], *, closed: bool = False) -> Delivery:
    """A report of ended calls, or of closed sessions."""
    message: EndedCalls | ClosedSessions
    if closed:
        message = ClosedSessions(worker_id=WorkerId(worker), closed=ended)  # type: ignore[arg-type]
    else:
        message = EndedCalls(worker_id=WorkerId(worker), ended=ended)  # type: ignore[arg-type]
    return Delivery(
        message=Message(message.model_dump_json().encode(), type=message.type),
        queue="q",
        exchange=NAMES.workers,
        routing_key="",
        redelivered=False,
        received_at=0.0,
        settle=None,
    )


@pytest.mark.parametrize("closed", [False, True], ids=["ended calls", "closed sessions"])
async def test_a_flood_of_made_up_ends_grows_a_worker_by_no_more_than_its_bound(closed: bool):
    endings = Endings(WorkerId("me"), NAMES, Publisher(), tombstone=60)
    now, batch = time.time(), 1000
    tracemalloc.start()
    try:
        for start in range(0, MOST_ENDED + 20 * batch, batch):
            names = (f"made-up-{number}".ljust(MAX_ID_BYTES, "x") for number in range(start, start + batch))
            endings.hear(told("other", dict.fromkeys(names, now), closed=closed))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    first, last = (CallId(f"made-up-{one}".ljust(MAX_ID_BYTES, "x")) for one in (0, MOST_ENDED + 20 * batch - 1))
    created = datetime.fromtimestamp(now - 1, UTC)

    def is_known(one: CallId) -> bool:
        return endings.was_closed(SessionId(one), created) if closed else one in endings

    assert is_known(last), "what came last is known"
    assert not is_known(first)
    assert MOST_BYTES // 4 < grown < MOST_BYTES, grown
    await endings.stop()


async def test_an_end_from_a_distant_past_is_not_remembered_at_all():
    endings = Endings(WorkerId("me"), NAMES, Publisher(), tombstone=60)
    endings.hear(told("other", {"c-1": time.time() - REMEMBER - 1}))
    assert not endings.bar("c-1", sent=datetime.fromtimestamp(0, UTC))  # type: ignore[arg-type]


def report(worker: str, state: str = "ready") -> PresenceReport:
    return PresenceReport(
        worker=WorkerInfo(
            worker_id=WorkerId(worker),
            host="h",
            pid=1,
            version="1",
            state=state,  # type: ignore[arg-type]
            started_at=datetime.now(UTC),
            sessions=0,
            capacity=1,
            services={},
        )
    )


async def test_of_countless_made_up_workers_the_most_silent_are_forgotten():
    me = WorkerId("me")
    presence = presence_of(me)
    for number in range(MOST_WORKERS + 10):
        presence.heard(report(f"w-{number}"), me)
    known = [one for one in range(MOST_WORKERS + 10) if presence.knows(WorkerId(f"w-{one}"))]
    assert known == list(range(10, MOST_WORKERS + 10))
    assert MOST_WORKERS > KEPT_IN_ANY_CASE


@pytest.mark.parametrize("state", ["stopped"])
async def test_a_worker_that_says_that_it_has_gone_is_forgotten(state):
    me = WorkerId("me")
    presence = presence_of(me)
    presence.heard(report("w-1"), me)
    presence.heard(report("w-1", state), me)
    assert not presence.knows(WorkerId("w-1"))
    assert choose(presence.ready(), [ServiceName("echo")]) is None


async def test_the_worker_that_places_is_where_loads_are_told_for_as_long_as_it_says_so():
    """In a property and not in the body, which older workers read strictly."""
    me = WorkerId("me")
    presence = presence_of(me)
    presence.heard(report("w-1"), me, "queue-of-w-1")
    assert presence.placer == ("w-1", "queue-of-w-1")
    presence.heard(report("w-1"), me)
    assert presence.placer is None
    assert set(report("w-1").model_dump()) == {"worker", "placements", "told"}, "all that older workers can read"
