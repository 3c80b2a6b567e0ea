"""Limits the metadata of sessions, in bytes: of each session, and of all sessions of a worker."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic_core import to_json

from consumer.calls.context import Bounds
from consumer.calls.owned_call import CallSession
from schemas.base import Json
from schemas.errors import Capacity

BESIDE_METADATA = 1024
"""Bytes of a session in a recipe that are not its metadata, at most."""


def weight_of(metadata: Json) -> int:
    """Return how many bytes a session with this metadata takes in a recipe."""
    return len(to_json(metadata)) + BESIDE_METADATA


class KeptMetadata:
    """Counts the bytes of the metadata of sessions that are open or being opened."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.max_weight = bounds.max_metadata + BESIDE_METADATA
        """The most bytes that a session may have in a recipe."""
        self._weights: dict[CallSession, int] = {}
        self._bytes = 0

    @contextmanager
    def reserved(self, weight: int) -> Iterator[None]:
        """Reserve this weight within the block that opens a session.

        Raises:
            Capacity: it would be too much for this worker.
        """
        if self._bytes + weight > self._bounds.max_kept:
            raise Capacity(
                f"the worker keeps {self._bytes} bytes of metadata and has no room for {weight} more (worker.max_kept)",
                size=weight,
                kept=self._bytes,
            )
        self._bytes += weight
        try:
            yield
        finally:
            self._bytes -= weight

    def keep(self, session: CallSession) -> None:
        """Count the current metadata of a session."""
        self.forget(session)
        if not session.has_ended:
            self._weights[session] = weight_of(session.metadata)
            self._bytes += self._weights[session]

    def forget(self, session: CallSession) -> None:
        """Stop counting the metadata of an ended session."""
        self._bytes -= self._weights.pop(session, 0)
