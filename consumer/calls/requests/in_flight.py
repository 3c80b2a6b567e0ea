"""Limits the requests that a worker holds, and those that MCP servers handle at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from consumer.calls.context import Bounds
from consumer.calls.owned_call import CallSession
from schemas.errors import Capacity, OutcomeUnknown
from schemas.events import EndReason

_CUT = {
    EndReason.CALL_ENDED: "the call ended",
    EndReason.REQUESTED: "the session was closed",
    EndReason.REPLACED: "the session was replaced",
    EndReason.IDLE: "the session expired",
    EndReason.MAX_LIFETIME: "the session reached its max_lifetime",
    EndReason.SUPERSEDED: "another worker has the call",
    EndReason.WORKER_GONE: "another worker has the call",
    EndReason.WORKER_SHUTDOWN: "the worker shut down",
}
"""How a session is closed while its server runs."""


class InFlight:
    """Counts requests, in number and bytes, and refuses those beyond the limits. A refused request executes nothing."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._held = 0
        self._bytes = 0
        self._at_servers = 0

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Count a request of ``size`` bytes within this block, in which it waits or runs.

        Raises:
            Capacity: the worker already holds its maximum.
        """
        bounds = self._bounds
        if self._held >= bounds.max_requests or self._bytes + size > bounds.max_kept:
            raise Capacity(
                f"the worker holds {self._held} requests of {self._bytes} bytes, which is its limit "
                "(worker.max_requests, worker.max_kept); wait for answers",
                requests=self._held,
                bytes=self._bytes,
            )
        self._held += 1
        self._bytes += size
        try:
            yield
        finally:
            self._held -= 1
            self._bytes -= size

    @contextmanager
    def at_server(self, session: CallSession, what: str) -> Iterator[None]:
        """Count a request to a session's server while it runs; this counts as a use of the session.

        If the session is closed meanwhile, the server cannot know why it ends. The error then names the reason, and
        ``what`` was cut off.

        Raises:
            Capacity: the session (``max_calls``) or the worker has reached its limit.
            OutcomeUnknown: the server ended before it answered, by itself or because the session was closed.
        """
        limit = session.process.service.max_calls
        if session.in_flight >= limit:
            raise Capacity(
                f"session {session.session_id!r} has {session.in_flight} calls in flight (max_calls); wait for one",
                limit=limit,
            )
        if self._at_servers >= self._bounds.max_calls:
            raise Capacity(
                f"the worker has {self._at_servers} calls in flight, which is its limit",
                limit=self._bounds.max_calls,
            )
        self._at_servers += 1
        try:
            with session.in_use():
                yield
        except OutcomeUnknown as error:
            if (reason := session.closed_because) is None:
                raise
            cut = f"{what}: {_CUT[reason]}, and ended the server before it answered"
            unknown = f"{cut}; it is unknown whether the request was executed"
            raise OutcomeUnknown(unknown, **error.details | {"reason": reason.value}) from error
        finally:
            self._at_servers -= 1
