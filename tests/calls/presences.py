"""A table of workers for tests, without a worker of its own that reports or asks, and reports for it."""

from collections.abc import Callable

from consumer.calls.cluster.membership import Presence
from schemas.ids import ServiceName, WorkerId
from schemas.internal import PresenceReport
from schemas.sessions import ServiceLoad, WorkerInfo, WorkerState
from tests.virtual_time import now

ECHO = ServiceName("echo")


def presence_of(me: WorkerId, grace: float = 5, restart: Callable[[str], None] = lambda _: None) -> Presence:
    """What the worker ``me`` knows of the others: nothing yet."""
    return Presence(grace, me, report_soon=lambda: None, request_presence=lambda: None, restart=restart)


def report_of(
    worker: WorkerId, *, sessions: int = 0, most: int = 5, state: WorkerState = "ready", told: int = 0,
    services: dict[str, ServiceLoad] | None = None,
) -> PresenceReport:  # fmt: skip
    """A worker's report in virtual time: by default of one service, with room for ``most`` sessions."""
    load = ServiceLoad(sessions=sessions, max_sessions=most)
    info = WorkerInfo(
        worker_id=worker, host="h", pid=1, version="1", state=state, started_at=now(), sessions=sessions, capacity=10,
        services=services or {str(ECHO): load},
    )  # fmt: skip
    return PresenceReport(worker=info, told=told)
