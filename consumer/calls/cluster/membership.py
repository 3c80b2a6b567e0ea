"""The table of workers: which are alive, and what load each has reported.

Idle workers send nothing. A worker reports to all when it starts, when it leaves, and when another one asks. It reports
a change of its load to the placer, or to all if it knows no placer. A worker asks for reports when it needs to know
which workers are alive: the placer before it places on a worker without a recent report or takes its calls away, a
worker that answers ``workers.list``, and a worker that finds an inbox without a consumer. The placer adds its own
placements since a worker's last report to that report, so its count of sessions is exact.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from consumer.broker.topology import INBOX_TTL_MS
from schemas.ids import ServiceName, WorkerId
from schemas.internal import PresenceReport
from schemas.sessions import WorkerInfo

log = structlog.get_logger(__name__)

FORGET = 60.0
"""After how long (s) a silent worker that was asked gets no more messages."""

KEEP = 600.0
"""How long (s) the revision of a silent worker's reported recipes is kept. Its recipes may still be on their way."""

KEPT_IN_ANY_CASE = 64
"""Up to this number of workers, none is forgotten."""

MOST_WORKERS = 1000
"""The most workers that are remembered, alive or not."""

PRESENCE_TIMEOUT = 0.3
"""How long (s) is waited for the reports that were asked for, before what is known without them must do: they take
milliseconds."""

ANSWER_SHARE = 0.8
"""How long a worker that is asked for a report may take before it is taken for dead, as a share of the grace. What it
held waits for a whole grace, and everybody is asked within the first fifth of that; see ``watch_every``."""

STANDSTILL = 0.7
"""After which share of the grace a worker drops its link that stood still, or whose report RabbitMQ does not read
although it was asked for. Others may own its calls soon: see ``ANSWER_SHARE``."""

SETTLE = 0.05
"""How long (s) changes of load are gathered into one report."""


@dataclass(slots=True)
class Seen:
    """A worker, as its last report described it."""

    info: WorkerInfo
    heard_at: float
    told: int
    """The revision of its recipes up to which it has reported its sessions."""
    asked_at: float | None = None
    """When all workers were asked to report, if it has not answered since; otherwise None."""
    told_gone: bool = False
    """Whether it was logged that the worker is gone."""
    held_at: float = -math.inf
    """When its inbox was last seen to have a consumer, while it was silent."""
    placed: dict[int, tuple[ServiceName, ...]] = field(default_factory=dict)
    """The placements since its report, by number. They are on their way, and not counted in ``info`` yet."""

    @property
    def order_of_silence(self) -> tuple[bool, float]:
        """Sorts the most silent worker first: unanswered requests, then the oldest report."""
        return self.asked_at is None, self.heard_at

    @property
    def on_the_way(self) -> Collection[tuple[ServiceName, ...]]:
        """The services of each call that was placed on it since; see ``placement.strategy``."""
        return self.placed.values()


class Presence:
    """The table of workers.

    ``report_soon`` is called when this worker should report, and ``request_presence`` when all workers should.
    ``restart`` drops the link, for a reason.
    """

    def __init__(
        self,
        grace: float,
        me: WorkerId,
        *,
        report_soon: Callable[[], None],
        request_presence: Callable[[], None],
        restart: Callable[[str], None],
    ) -> None:
        self._me = me
        self.report_soon = report_soon
        self._request_presence = request_presence
        self._restart = restart
        self._unanswered: asyncio.TimerHandle | None = None
        """Drops the link, unless RabbitMQ answers behind our report before others take us for dead."""
        self.grace = grace
        """How long (s) a worker may be silent."""
        self._table: dict[WorkerId, Seen] = {}
        self._number = 0
        self._listening_since = math.inf
        self._deafened_at = -math.inf
        self._asked_at = -math.inf
        self._bound = False
        self._reported = 0
        self._echoes = 0
        self._news = asyncio.Event()
        self.placer: tuple[WorkerId, str] | None = None
        """The placer, and the queue to which it wants reports of load; None if it is unknown."""

    @property
    def watch_every(self) -> float:
        """How often (s) a worker checks that its neighbour's inbox has a consumer; see ``neighbour``."""
        return (1 - ANSWER_SHARE) * self.grace

    def bound(self) -> None:
        """Note that our queue is bound: messages to all workers and our own reports arrive from now on."""
        self._bound = True

    def reported(self) -> None:
        """Record a sent report: reports return in order on one link, after earlier reports of other workers.

        One that is sent while a link is being attached, before our queue is bound, does not return.
        """
        self._reported += self._bound

    def echoed(self) -> None:
        """Record that our own report came back: all earlier reports of other workers have been received."""
        self._echoes += 1
        self._hears()
        self._tell()

    def _hears(self) -> None:
        if self._listening_since == math.inf:
            self._listening_since = asyncio.get_running_loop().time()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _heard_more(self, until: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._news.wait()

    def asked(self) -> None:
        """Note that all workers were asked to report. The live ones answer now.

        If RabbitMQ has not read our own answer, the others have not heard it: the connection on which we publish can be
        lost unnoticed, while tool calls still arrive on the other one. A link on which none of our reports has come
        back yet leads no tool calls here, and may need longer while it is being attached.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._hears()
        if self._echoes and self._unanswered is None:
            why = f"RabbitMQ did not read a report that was asked for within {STANDSTILL * self.grace:g} s"
            self._unanswered = loop.call_later(STANDSTILL * self.grace, self._restart, why)
        for worker_id, seen in self._table.items():
            if seen.asked_at is None and worker_id != self._me:
                seen.asked_at = now

    def answered(self) -> None:
        """Note that RabbitMQ has read our answer."""
        if self._unanswered is not None:
            self._unanswered.cancel()
            self._unanswered = None

    def heard(self, message: PresenceReport, placer: WorkerId, reports_to: str | None = None) -> None:
        """Take a report. ``placer`` is this worker, whose placements are kept here.

        Only the placer's report has ``reports_to``, the queue for reports of load.
        """
        worker = message.worker
        now = asyncio.get_running_loop().time()
        if reports_to:
            self.placer = worker.worker_id, reports_to
        elif self.placer is not None and self.placer[0] == worker.worker_id:
            self.placer = None
        if worker.state == "stopped":
            self._table.pop(worker.worker_id, None)
        else:
            known = self._table.get(worker.worker_id)
            counted = message.placements.get(placer, 0)
            placed = (
                {number: services for number, services in known.placed.items() if number > counted} if known else {}
            )
            self._table[worker.worker_id] = Seen(worker, now, message.told, placed=placed)
            self._forget(now)
        self._tell()

    def _forget(self, now: float) -> None:
        """Forget workers that fell silent long ago, and the most silent ones if there are too many."""
        if len(self._table) <= KEPT_IN_ANY_CASE:
            return
        for worker_id, seen in list(self._table.items()):
            if seen.asked_at is not None and seen.asked_at < now - KEEP:
                del self._table[worker_id]
        while len(self._table) > MOST_WORKERS:
            del self._table[min(self._table, key=lambda one: self._table[one].order_of_silence)]

    def alive(self, worker_id: WorkerId) -> bool:
        """Whether the worker counts as alive: no request to it has been unanswered for too long."""
        seen = self._table.get(worker_id)
        if seen is None:
            return False
        return seen.asked_at is None or asyncio.get_running_loop().time() - seen.asked_at <= ANSWER_SHARE * self.grace

    async def has_listened(self, seconds: float) -> None:
        """Wait until this link has received reports for ``seconds``. The link began with a request for them."""
        loop = asyncio.get_running_loop()
        while (left := self._listening_since + seconds - loop.time()) > 0:
            await self._heard_more(loop.time() + min(left, self.grace))

    async def refreshed(self, max_age: float | None = None) -> None:
        """Ask for reports unless each live worker has reported in the last ``max_age`` seconds (default: the grace).

        Waits ``PRESENCE_TIMEOUT`` seconds at most. A worker that has left earlier requests unanswered for this long is
        not waited for. With 0, this worker reports anew, too: its last report may be older than its last change.
        """
        loop = asyncio.get_running_loop()
        age = self.grace if max_age is None else max_age
        began = loop.time()
        if self._unheard(began - age / 2, ours_too=age == 0):  # before anybody has to wait for it
            self._ask(unless_within=PRESENCE_TIMEOUT if age else 0.0)
        while loop.time() < began + PRESENCE_TIMEOUT and self._unheard(began - age, ours_too=age == 0):
            await self._heard_more(began + PRESENCE_TIMEOUT)

    def _unheard(self, since: float, *, ours_too: bool) -> bool:
        """Return whether a worker that may still answer has not reported since then."""
        now = asyncio.get_running_loop().time()
        return any(
            seen.heard_at < since
            for worker_id, seen in self._table.items()
            if (ours_too or worker_id != self._me)
            and (seen.asked_at is None or now - seen.asked_at <= PRESENCE_TIMEOUT)
        )

    def _ask(self, *, unless_within: float) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._asked_at >= unless_within:
            self._asked_at = now
            self._request_presence()

    async def lives(self, worker_id: WorkerId) -> bool:
        """Ask a worker whether it is alive, and wait for its answer, before its calls are taken away.

        A whole grace after a new link, for when the broker itself was away, everybody was, and its clocks ran on.
        """
        await self.has_listened(self.grace)
        loop = asyncio.get_running_loop()
        while (seen := self._table.get(worker_id)) is not None and self.alive(worker_id):
            if seen.asked_at is not None:
                until = seen.asked_at + ANSWER_SHARE * self.grace + 0.001
            elif loop.time() - seen.heard_at <= self.grace:
                return True
            else:
                until = loop.time() + PRESENCE_TIMEOUT
                self._ask(unless_within=PRESENCE_TIMEOUT)
            await self._heard_more(until)
        await self.heard_out()  # its answer may wait behind something, if it was us who stood still
        return self.alive(worker_id)

    async def heard_out(self) -> None:
        """Wait until this worker has received all reports that the others have sent up to now.

        It sends a report of its own, which comes back behind theirs through the same queue.
        """
        awaited = self._reported + 1
        self.report_soon()
        while self._echoes < awaited:
            await self._news.wait()

    def deafened(self) -> None:
        """Note that the link is lost: no reports arrive, and those on their way are lost."""
        self._bound = False
        self.answered()
        self._reported = self._echoes = 0
        self._deafened_at = asyncio.get_running_loop().time()
        self._listening_since = math.inf
        self._asked_at = -math.inf
        self.placer = None
        for seen in self._table.values():
            seen.asked_at = None

    def neighbour(self) -> WorkerId | None:
        """Return the worker whose inbox this one checks: the next live worker by id. So each has one that checks it."""
        others = sorted(worker_id for worker_id in self._table if worker_id != self._me and self.alive(worker_id))
        return next((one for one in others if one > self._me), others[0] if others else None)

    def held(self, worker_id: WorkerId) -> None:
        """Note that a silent worker's inbox has a consumer: the worker hangs, and RabbitMQ still holds its calls."""
        seen = self._table.get(worker_id)
        if seen is not None:
            seen.held_at = asyncio.get_running_loop().time()

    def unaccounted(self) -> set[WorkerId]:
        """Return the workers that do not answer, and whose sessions may not have been reported as lost yet.

        A worker that hangs stays among them until RabbitMQ cuts it off. From then on its calls take the time that its
        inbox and the queue of orphans hold them, and as long again for the placer to report and place them.
        """
        now = asyncio.get_running_loop().time()
        lost_within = INBOX_TTL_MS / 1000 + 2 * self.grace
        return {
            worker_id
            for worker_id, seen in self._table.items()
            if worker_id != self._me
            and seen.asked_at is not None
            and not self.alive(worker_id)
            and now - max(seen.asked_at, seen.held_at) <= lost_within
        }

    def missed(self) -> None:
        """Ask all workers to report, because one seems to be gone."""
        self._ask(unless_within=self.watch_every / 2)

    def knows(self, worker_id: WorkerId) -> bool:
        """Whether the worker may exist: it has not reported its end, and answered within the last minute if asked."""
        seen = self._table.get(worker_id)
        if seen is None:
            return False
        return seen.asked_at is None or asyncio.get_running_loop().time() - seen.asked_at <= FORGET

    def tell_gone(self, worker_id: WorkerId) -> None:
        """Log that a worker is gone, with the sessions of its last report: once until it reports again."""
        seen = self._table.get(worker_id)
        if seen is not None and not seen.told_gone:
            seen.told_gone = True
            log.warning("placer.worker_gone", worker_id=worker_id, host=seen.info.host, sessions=seen.info.sessions)

    def told_of(self, worker_id: WorkerId) -> int:
        """Return the last recipe revision whose sessions the worker is known to have reported."""
        seen = self._table.get(worker_id)
        return seen.told if seen is not None else 0

    def workers(self) -> Iterator[WorkerInfo]:
        """Return the workers that count as alive."""
        return (seen.info for worker_id, seen in sorted(self._table.items()) if self.alive(worker_id))

    def ready(self) -> Iterator[Seen]:
        """Return the workers that may get calls: ready, and with a report on this link."""
        now = asyncio.get_running_loop().time()
        for seen in self._table.values():
            fresh = seen.asked_at is None or now - seen.heard_at <= self.grace
            heard = seen.info.worker_id == self._me or seen.heard_at > self._deafened_at
            if heard and fresh and seen.info.state == "ready":
                yield seen

    @property
    def any_ready(self) -> bool:
        """Whether any worker may get calls."""
        return next(self.ready(), None) is not None

    def others_ready(self, worker_id: WorkerId) -> bool:
        """Whether another worker could take calls over."""
        return any(seen.info.worker_id != worker_id for seen in self.ready())

    def offers(self, service: ServiceName) -> bool | None:
        """Whether a ready worker has the service enabled. None if no ready worker knows the service."""
        known = [seen.info.services[service].enabled for seen in self.ready() if service in seen.info.services]
        return any(known) if known else None

    def place(self, worker_id: WorkerId, services: Collection[ServiceName]) -> int:
        """Count a placement until the worker's own report does. Return its number."""
        self._number += 1
        seen = self._table.get(worker_id)
        if seen is not None:
            seen.placed[self._number] = tuple(services)
        return self._number
