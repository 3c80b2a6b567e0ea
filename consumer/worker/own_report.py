"""This worker's reports to the other workers."""

import os
import socket
from collections.abc import Callable
from datetime import datetime

from consumer import __version__
from consumer.calls.context import ToolProcess
from consumer.calls.ownership.owner import Owner
from consumer.calls.ownership.recovery import Recovery
from consumer.processes.mcp_manager import MCPManager
from consumer.sessions import SessionManager
from schemas.ids import ServiceName, WorkerId
from schemas.internal import PresenceReport
from schemas.sessions import ServiceLoad, WorkerInfo, WorkerState


class OwnReport:
    """Makes the reports of this worker; ``phase`` returns its state."""

    def __init__(
        self,
        worker_id: WorkerId,
        started_at: datetime,
        sessions: SessionManager[ToolProcess],
        mcp: MCPManager,
        *,
        owner: Owner,
        recovery: Recovery,
        phase: Callable[[], WorkerState],
    ) -> None:
        self._worker_id = worker_id
        self._started_at = started_at
        self._sessions = sessions
        self._mcp = mcp
        self._owner = owner
        self._recovery = recovery
        self._phase = phase

    def info(self) -> WorkerInfo:
        """Return this worker's description for the others."""
        sessions, limits = self._sessions, self._sessions.limits
        return WorkerInfo(
            worker_id=self._worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            state=self._phase(),
            started_at=self._started_at,
            sessions=sessions.count(),
            capacity=limits.max_total_sessions,
            services={
                ServiceName(name): ServiceLoad(
                    sessions=sessions.count(ServiceName(name)),
                    max_sessions=limits.max_sessions_of(ServiceName(name)),
                    warm=self._mcp.warm(name),
                    **service.public(),
                )
                for name, service in self._mcp.services.items()
            },
        )

    def presence(self) -> PresenceReport:
        """Return the present report: the load, the counted placements, and the published recipes."""
        return PresenceReport(worker=self.info(), placements=dict(self._owner.placements), told=self._recovery.told)
