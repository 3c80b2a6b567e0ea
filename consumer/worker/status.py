"""What a worker tells of itself while it runs: its metrics, whether it is ready, and over HTTP if it shall."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from consumer.concurrency.task_set import Tasks
from consumer.observability import looplag, metrics
from consumer.observability.metrics_port import metrics_port
from consumer.worker.peers import Peers
from consumer.worker.wiring import Parts


class WorkerStatus:
    """Looks at a worker from outside; ``link_up`` and ``probe`` say whether it has a link and its probes come back."""

    def __init__(self, parts: Parts, peers: Peers, link_up: Callable[[], bool], probe: Callable[[], bool]) -> None:
        self._parts = parts
        self._peers = peers
        self._link_up = link_up
        self._probe = probe

    @asynccontextmanager
    async def running(self, *, exposed: bool = False) -> AsyncIterator[None]:
        """Tell, on ``worker.http_port`` if there is one; ``exposed`` says that somebody else exposes the metrics too.

        Raises:
            CannotListen: that port cannot be listened on.
        """
        own = self._parts.settings.worker
        async with metrics_port(own.http_host, own.http_port, self.readiness) as listening:
            if not (listening or exposed):
                yield
                return
            metrics.STATE.look = self.state
            tasks = Tasks()
            tasks.start(looplag.measure(), "loop-lag")
            try:
                yield
            finally:
                metrics.STATE.look = None
                await tasks.cancel()

    def readiness(self) -> dict[str, object]:
        """Whether the worker can be given a call, and what speaks for and against it."""
        state, link, probe = self._parts.state, self._link_up(), self._probe()
        return {"ready": state == "ready" and link and probe, "state": state, "link": link, "probe": probe}

    def state(self) -> metrics.State:
        """The worker's gauges as of now."""
        parts = self._parts
        services = self._peers.info().services
        return metrics.State(
            open={str(name): load.sessions for name, load in services.items()},
            capacity={str(name): load.max_sessions for name, load in services.items()},
            warm={str(name): load.warm for name, load in services.items()},
            tool_calls_in_flight=parts.ownership.tool_calls.in_flight,
            admission_waiting=parts.placer.waiting,
            link_up=self._link_up(),
            events_waiting=len(parts.outbox) + parts.ownership.owned_calls.pending_events,
            placer=parts.placer.is_placing,
            workers=Counter(worker.state for worker in parts.presence.workers()),
            healthy=self._link_up() and self._probe(),
        )
