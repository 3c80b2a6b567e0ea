"""The claim of a worker to its id: finds out whether another process has it, and which of the two has to exit."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from schemas.sessions import WorkerInfo


class IdClaim:
    """Decides which of two processes keeps their common id.

    While a worker joins, a process that already has the id keeps it. Of two that joined at the same time, the younger
    one exits.
    """

    def __init__(self, started_at: datetime) -> None:
        self._started_at = started_at
        self._joining = False
        self.rival: asyncio.Future[WorkerInfo] = asyncio.get_running_loop().create_future()
        """A future that is done when another process has our id and this one has to exit."""

    @contextmanager
    def joining(self) -> Iterator[None]:
        """Mark the block in which another process may still have the id."""
        self._joining = True
        try:
            yield
        finally:
            self._joining = False

    def is_ours(self, report: WorkerInfo) -> bool:
        """Return whether a report with our id is our own."""
        return report.started_at == self._started_at

    def hear(self, rival: WorkerInfo) -> None:
        """Take a report of another process with our id."""
        goes = self._joining or rival.started_at < self._started_at
        if goes and not self.rival.done():
            self.rival.set_result(rival)
