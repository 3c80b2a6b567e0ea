"""Chooses a worker for the sessions of a call, by the room that each has. Pure.

To change the placement strategy, change ``choose``.
"""

from collections.abc import Collection, Iterable
from typing import Protocol

from schemas.ids import ServiceName, WorkerId
from schemas.sessions import ServiceLoad, WorkerInfo


class Candidate(Protocol):
    """A worker that may be given a call: its last report, and the placements since then."""

    @property
    def info(self) -> WorkerInfo:
        """The report of the worker."""
        ...

    @property
    def on_the_way(self) -> Collection[tuple[ServiceName, ...]]:
        """The services of each call that was placed there and that the report does not count yet."""
        ...


def total_room(candidate: Candidate) -> int:
    """Return how many more sessions the worker may have."""
    placed = sum(len(services) for services in candidate.on_the_way)
    return candidate.info.capacity - candidate.info.sessions - placed


def service_room(candidate: Candidate, service: ServiceName) -> int:
    """Return how many more sessions on a service the worker may have."""
    load = candidate.info.services.get(service)
    if load is None or not load.enabled:
        return 0
    placed = sum(services.count(service) for services in candidate.on_the_way)
    return load.max_sessions - load.sessions - placed


def warm_processes(candidate: Candidate, services: Collection[ServiceName]) -> int:
    """Return how many warm processes of these services the worker has."""
    return sum(candidate.info.services.get(service, ServiceLoad()).warm for service in services)


def choose(
    candidates: Iterable[Candidate], services: Collection[ServiceName], without: Collection[WorkerId] = ()
) -> WorkerId | None:
    """Return the worker with most room for one more session on each of ``services``. Warm processes count as room.

    Among workers with equal room, it is the one with fewer calls on their way, and then the last by id. None: no worker
    has room for all of them.
    """
    best: tuple[int, int, WorkerId] | None = None
    for candidate in candidates:
        worker = candidate.info.worker_id
        room = min((service_room(candidate, service) for service in services), default=0)
        total = total_room(candidate)
        if worker in without or room < 1 or total < len(services):
            continue
        rank = (min(room, total) + warm_processes(candidate, services), -len(candidate.on_the_way), worker)
        best = rank if best is None else max(best, rank)
    return best[2] if best is not None else None


def has_any_room(candidates: Iterable[Candidate], without: Collection[WorkerId] = ()) -> bool:
    """Whether any worker has room for one more session."""
    return any(total_room(one) > 0 for one in candidates if one.info.worker_id not in without)
