"""The claim of a worker to its id: whether another process has the same, and which of the two goes."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from schemas.sessions import WorkerInfo


class IdClaim:
    """Decides who keeps an id that two processes have.

    While a worker joins, whoever has the id already keeps it. Later, of two that came at the same time, the younger
    one goes.
    """

    def __init__(self, started_at: datetime) -> None:
        self._started_at = started_at
        self._joining = False
        self.rival: asyncio.Future[WorkerInfo] = asyncio.get_running_loop().create_future()
        """Done when another process has our id, and we are the one to go."""

    @contextmanager
    def joining(self) -> Iterator[None]:
        """Mark the block in which another process may still have the id."""
        self._joining = True
        try:
            yield
        finally:
            self._joining = False

    def is_ours(self, report: WorkerInfo) -> bool:
        """Whether a report under our id is our own, which has come back."""
        return report.started_at == self._started_at

    def hear(self, rival: WorkerInfo) -> None:
        """Take a report of another process under our id."""
        goes = self._joining or rival.started_at < self._started_at
        if goes and not self.rival.done():
            self.rival.set_result(rival)
