"""The status of a running worker: its metrics and its readiness, over HTTP if it has a port."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from consumer.broker.outbox import Outbox
from consumer.calls.cluster.membership import Presence
from consumer.calls.placement.placer import Placer
from consumer.concurrency.task_set import Tasks
from consumer.observability import looplag, metrics
from consumer.observability.metrics_port import metrics_port
from consumer.settings.models import WorkerSettings
from consumer.worker.own_report import OwnReport
from consumer.worker.owner_wiring import Ownership
from schemas.sessions import WorkerState


class WorkerStatus:
    """Reads a worker's gauges and its readiness.

    ``phase`` returns the worker's state; ``link_up`` and ``probe`` say whether it has a link and its probes return.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        own_report: OwnReport,
        ownership: Ownership,
        placer: Placer,
        *,
        presence: Presence,
        outbox: Outbox,
        phase: Callable[[], WorkerState],
        link_up: Callable[[], bool],
        probe: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._own_report = own_report
        self._ownership = ownership
        self._placer = placer
        self._presence = presence
        self._outbox = outbox
        self._phase = phase
        self._link_up = link_up
        self._probe = probe

    @asynccontextmanager
    async def running(self, *, exposed: bool = False) -> AsyncIterator[None]:
        """Report the status, on ``worker.http_port`` if it is set; ``exposed`` if the gateway exposes the metrics too.

        Raises:
            CannotListen: that port cannot be listened on.
        """
        own = self._settings
        async with metrics_port(own.http_host, own.http_port, self.readiness) as listening:
            if not (listening or exposed):
                yield
                return
            tasks = Tasks()
            tasks.start(looplag.measure(), "loop-lag")
            try:
                with metrics.STATE.supplied_by(self.state):
                    yield
            finally:
                await tasks.cancel()

    def readiness(self) -> dict[str, object]:
        """Return whether the worker can take a call, and the conditions for that."""
        state, link, probe = self._phase(), self._link_up(), self._probe()
        ready = state == "ready" and link and probe
        told = state if ready or state != "ready" else "stalled" if link else "connecting"
        return {"ready": ready, "state": told, "link": link, "probe": probe}

    def state(self) -> metrics.State:
        """Return the present values of the worker's gauges."""
        info = self._own_report.info()
        services = info.services
        return metrics.State(
            open={str(name): load.sessions for name, load in services.items()},
            capacity={str(name): load.max_sessions for name, load in services.items()},
            limit=info.capacity,
            warm={str(name): load.warm for name, load in services.items()},
            tool_calls_in_flight=self._ownership.tool_calls.in_flight,
            admission_waiting=self._placer.waiting,
            link_up=self._link_up(),
            events_waiting=len(self._outbox) + self._ownership.owned_calls.pending_events,
            placer=self._placer.is_placing,
            workers=Counter(worker.state for worker in self._presence.workers()),
            healthy=self._link_up() and self._probe(),
        )
