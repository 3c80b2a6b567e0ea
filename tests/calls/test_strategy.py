"""Which worker gets a call: the one with most room for all of its services."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.calls.placement.strategy import choose, has_any_room, service_room, total_room
from schemas.ids import ServiceName, WorkerId
from schemas.sessions import ServiceLoad, WorkerInfo

ECHO, TODO = ServiceName("echo"), ServiceName("todo")
BOTH = (ECHO, TODO)


@dataclass(frozen=True)
class Worker:
    """A candidate as the strategy sees it."""

    info: WorkerInfo
    on_the_way: list[tuple[ServiceName, ...]] = field(default_factory=list)


def worker(name: str, *, sessions: int = 0, capacity: int = 10, on_the_way=(), **services: ServiceLoad) -> Worker:
    loads = dict(services)
    info = WorkerInfo(
        worker_id=WorkerId(name), host="h", pid=1, version="1", state="ready", started_at=datetime.now(UTC),
        sessions=sessions, capacity=capacity, services=loads,
    )  # fmt: skip
    return Worker(info, list(on_the_way))


def load(sessions: int, most: int = 5, *, warm: int = 0, enabled: bool = True) -> ServiceLoad:
    return ServiceLoad(sessions=sessions, max_sessions=most, warm=warm, enabled=enabled)


@pytest.mark.parametrize(
    ("why", "workers", "services", "chosen"),
    [
        ("nobody is there", [], (ECHO,), None),
        ("most room", [worker("a", echo=load(3)), worker("b", echo=load(1))], (ECHO,), "b"),
        ("warm processes are room", [worker("a", echo=load(3, warm=4)), worker("b", echo=load(1))], (ECHO,), "a"),
        ("the service is full", [worker("a", echo=load(5))], (ECHO,), None),
        ("the service is disabled", [worker("a", echo=load(0, enabled=False))], (ECHO,), None),
        ("the service is unknown", [worker("a", todo=load(0))], (ECHO,), None),
        ("the worker is full", [worker("a", sessions=10, echo=load(0))], (ECHO,), None),
        ("what is on the way is counted", [worker("a", echo=load(4), on_the_way=[(ECHO,)])], (ECHO,), None),
        ("and in all", [worker("a", capacity=1, echo=load(0), on_the_way=[(TODO,)])], (ECHO,), None),
        ("all on one", [worker("a", echo=load(5), todo=load(0)), worker("b", echo=load(0), todo=load(5))], BOTH, None),
        ("room for both", [worker("a", capacity=1, echo=load(0), todo=load(0))], BOTH, None),
        ("room for just both", [worker("a", capacity=2, echo=load(0), todo=load(0))], BOTH, "a"),
        ("fewer on the way", [worker("b", echo=load(0), on_the_way=[BOTH]), worker("a", echo=load(1))], (ECHO,), "a"),
        ("the last by id", [worker("b", echo=load(1)), worker("a", echo=load(1))], (ECHO,), "b"),
    ],
)  # fmt: skip
def test_the_choice(why: str, workers: list[Worker], services: tuple[ServiceName, ...], chosen: str | None):
    assert choose(workers, services) == chosen, why
    assert choose(reversed(workers), services) == chosen, "in whatever order they are known"


loads = st.builds(
    ServiceLoad,
    sessions=st.integers(0, 6),
    max_sessions=st.integers(0, 6),
    warm=st.integers(0, 3),
    enabled=st.booleans(),
)
candidates = st.lists(
    st.builds(
        worker,
        st.sampled_from("abcdef"),
        sessions=st.integers(0, 8),
        capacity=st.integers(0, 8),
        on_the_way=st.lists(st.sampled_from([(ECHO,), (TODO,), BOTH, ()]), max_size=3),
        echo=loads,
        todo=loads,
    ),
    max_size=6,
    unique_by=lambda one: one.info.worker_id,
)
wanted = st.sampled_from([(ECHO,), (TODO,), BOTH])
names = st.sets(st.sampled_from([WorkerId(name) for name in "abcdef"]))


@given(candidates, wanted, names)
def test_who_is_chosen_has_room_and_nobody_is_chosen_only_where_nobody_has(workers, services, without):
    roomy = {
        one.info.worker_id
        for one in workers
        if one.info.worker_id not in without
        and total_room(one) >= len(services)
        and all(service_room(one, service) > 0 for service in services)
    }
    chosen = choose(workers, services, without)
    assert chosen in roomy if roomy else chosen is None
    if chosen is not None:
        assert has_any_room(workers, without)


@given(candidates, wanted, st.randoms())
def test_the_order_in_which_workers_are_known_makes_no_difference(workers, services, random):
    shuffled = list(workers)
    random.shuffle(shuffled)
    assert choose(shuffled, services) == choose(workers, services)


@given(candidates, wanted)
def test_a_call_that_is_placed_takes_room_on_its_worker_only(workers, services):
    chosen = choose(workers, services)
    for one in workers:
        before = total_room(one), service_room(one, services[0])
        if one.info.worker_id == chosen:
            one.on_the_way.append(services)
            taken = 1 if services[0] in one.info.services else 0
            assert (total_room(one), service_room(one, services[0])) == (before[0] - len(services), before[1] - taken)
        else:
            assert (total_room(one), service_room(one, services[0])) == before
