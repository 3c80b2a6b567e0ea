"""Who is there, and how much room each has.

Every worker tells all others about itself: when it comes, when its load changes, and every ``INTERVAL`` seconds. What
the placer has placed since a worker's last report is added to that report, so that placing is as exact as counting.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from consumer.broker.message import Message
from consumer.broker.publisher import Publisher
from schemas.ids import ServiceName, WorkerId
from schemas.internal import Presence as PresenceMessage
from schemas.internal import PresenceRequest
from schemas.sessions import ServiceLoad, WorkerInfo

INTERVAL = 1.0
"""How often (s) a worker reports when nothing changes; several fit into the grace."""

FORGET = 60.0
"""When (s) a worker that is silent is no longer in the table."""

KEEP = 600.0
"""How long (s) it is remembered of a silent worker what it has told of; its recipes may be on their way as long."""

KEPT_IN_ANY_CASE = 64
"""Workers among which none is forgotten."""

MOST_WORKERS = 1000
"""The most workers that are remembered, living or not."""

ROLL_CALL = 0.3
"""How long (s) a worker that has just come listens before it answers for all: they report as soon as it asks."""

SETTLE = 0.05
"""How long (s) changes of load are gathered into one report."""


@dataclass(slots=True)
class Seen:
    """A worker as it was last heard."""

    info: WorkerInfo
    heard_at: float
    told: int
    """Up to which revision of its recipes it has told of its sessions."""
    placed: deque[tuple[int, tuple[ServiceName, ...]]] = field(default_factory=deque)
    """What was placed on it since, by number: on its way, and not in ``info`` yet."""

    def on_the_way(self, service: ServiceName | None = None) -> int:
        """Sessions placed and not reported yet, of one service or all."""
        return sum(len(services) if service is None else services.count(service) for _, services in self.placed)

    def total_room(self) -> int:
        """How many more sessions it may have."""
        return self.info.capacity - self.info.sessions - self.on_the_way()

    def service_room(self, service: ServiceName) -> int:
        """How many more sessions of ``service`` it may have."""
        load = self.info.services.get(service)
        if load is None or not load.enabled:
            return 0
        return load.max_sessions - load.sessions - self.on_the_way(service)

    def warm(self, services: Collection[ServiceName]) -> int:
        """Processes that wait for a call on these services."""
        return sum(self.info.services.get(service, ServiceLoad()).warm for service in services)


class Presence:
    """The table of workers."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        """How long (s) a worker may be silent."""
        self._table: dict[WorkerId, Seen] = {}
        self._number = 0
        self._echo_at = -math.inf
        self._listening_since = 0.0
        self._reported = 0
        self._echoes = 0
        self._echo = asyncio.Event()
        self.changed: Callable[[], None] = lambda: None
        """Called when a report has come: there may be room now."""
        self.report_soon: Callable[[], None] = lambda: None
        """Called when a report of ours is wanted."""

    def reported(self) -> None:
        """A report of ours is sent: on one link they come back in this order, behind what others sent before."""
        self._reported += 1

    def echoed(self) -> None:
        """Our own report has come back from the broker: the others' come as well, if they send any."""
        self._echoes += 1
        self._echo.set()
        now = asyncio.get_running_loop().time()
        if now - self._echo_at > 2 * INTERVAL:
            self._listening_since = now  # we had no link, or stood still, or the broker is slow
        self._echo_at = now

    def heard(self, message: PresenceMessage, placer: WorkerId) -> None:
        """Take a report; ``placer`` is the worker whose placements are kept here, which is this one."""
        worker = message.worker
        now = asyncio.get_running_loop().time()
        if worker.state == "stopped":
            self._table.pop(worker.worker_id, None)
        else:
            known = self._table.get(worker.worker_id)
            seen = Seen(worker, now, message.told, known.placed if known else deque())
            counted = message.placements.get(placer, 0)
            while seen.placed and seen.placed[0][0] <= counted:
                seen.placed.popleft()
            self._table[worker.worker_id] = seen
            self._forget(now)
        self.changed()

    def _forget(self, now: float) -> None:
        """Let go of workers that fell silent long ago, and of the most silent when there are too many."""
        if len(self._table) <= KEPT_IN_ANY_CASE:
            return
        for worker_id, seen in list(self._table.items()):
            if seen.heard_at < now - KEEP:
                del self._table[worker_id]
        while len(self._table) > MOST_WORKERS:
            del self._table[min(self._table, key=lambda one: self._table[one].heard_at)]

    def alive(self, worker_id: WorkerId) -> bool:
        """Whether the worker was heard of within the grace."""
        seen = self._table.get(worker_id)
        return seen is not None and asyncio.get_running_loop().time() - seen.heard_at <= self.grace

    def has_heard(self, seconds: float) -> bool:
        """Whether the others could be heard for so long without a break, up to now."""
        return self._deaf_for(seconds) <= 0

    async def has_listened(self, seconds: float) -> None:
        """Wait until the others could be heard for so long without a break."""
        while (left := self._deaf_for(seconds)) > 0:  # noqa: ASYNC110 - the moment moves, by the clock
            await asyncio.sleep(min(left, 0.2))

    async def can_judge(self) -> None:
        """Wait until a worker that is not heard can be taken for dead.

        A whole grace: when the broker itself was away, everybody was, and its clocks ran on.
        """
        await self.has_listened(self.grace)

    async def heard_out(self) -> None:
        """Wait until everything has been heard that the others have reported up to now.

        A report of ours that is sent from now on comes back behind theirs, through the same queue.
        """
        awaited = self._reported + 1
        self.report_soon()
        while self._echoes < awaited:
            self._echo.clear()
            await self._echo.wait()

    def _deaf_for(self, seconds: float) -> float:
        now = asyncio.get_running_loop().time()
        since = now if now - self._echo_at > 2 * INTERVAL else self._listening_since
        return since + seconds - now

    def deafened(self) -> None:
        """The link is lost: nobody can be heard, and what was on its way does not come."""
        self._reported = self._echoes = 0
        self._echo_at = -math.inf

    def knows(self, worker_id: WorkerId) -> bool:
        """Whether the worker may be there: it was heard of in the last minute, and has not said that it has gone."""
        seen = self._table.get(worker_id)
        return seen is not None and asyncio.get_running_loop().time() - seen.heard_at <= FORGET

    def told_of(self, worker_id: WorkerId) -> int:
        """Up to which revision of its recipes the worker is known to have told of its sessions."""
        seen = self._table.get(worker_id)
        return seen.told if seen is not None else 0

    def workers(self) -> Iterator[WorkerInfo]:
        """Everybody who was heard of within the grace."""
        return (seen.info for worker_id, seen in sorted(self._table.items()) if self.alive(worker_id))

    def _ready(self, without: Collection[WorkerId] = ()) -> Iterator[Seen]:
        for worker_id, seen in self._table.items():
            if seen.info.state == "ready" and worker_id not in without and self.alive(worker_id):
                yield seen

    def others_ready(self, worker_id: WorkerId) -> bool:
        """Whether somebody else could take calls over."""
        return any(True for _ in self._ready({worker_id}))

    def offers(self, service: ServiceName) -> bool | None:
        """Whether some ready worker has the service enabled; None when none knows it."""
        known = [seen.info.services[service].enabled for seen in self._ready() if service in seen.info.services]
        return any(known) if known else None

    def choose(self, services: Collection[ServiceName], without: Collection[WorkerId] = ()) -> WorkerId | None:
        """The worker with most room for one more session of each of ``services``; warm processes count as room."""
        best: tuple[int, int, WorkerId] | None = None
        for seen in self._ready(without):
            room = min((seen.service_room(service) for service in services), default=0)
            total = seen.total_room()
            if room < 1 or total < len(services):
                continue
            candidate = (min(room, total) + seen.warm(services), -len(seen.placed), seen.info.worker_id)
            best = candidate if best is None else max(best, candidate)
        return best[2] if best else None

    def any_total_room(self, without: Collection[WorkerId] = ()) -> bool:
        """Whether some worker could have more sessions of something."""
        return any(seen.total_room() > 0 for seen in self._ready(without))

    def place(self, worker_id: WorkerId, services: Collection[ServiceName]) -> int:
        """Count a placement in, ahead of the worker's own report; returns its number."""
        self._number += 1
        seen = self._table.get(worker_id)
        if seen is not None:
            seen.placed.append((self._number, tuple(services)))
        return self._number


async def call_the_roll(
    publisher: Publisher, workers_exchange: str, worker_id: WorkerId, *, endings_to: str | None = None
) -> None:
    """Ask everybody to report now; the reports come to each worker's own queue, and what has ended to that one."""
    question = PresenceRequest(worker_id=worker_id)
    message = Message(
        body=question.model_dump_json().encode(), type=PresenceRequest.type, reply_to=endings_to, persistent=False
    )
    await publisher.fast(message, workers_exchange, "")
