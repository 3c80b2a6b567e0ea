"""A table of workers for tests, without a worker of its own that reports or asks."""

from consumer.calls.cluster.membership import Presence
from schemas.ids import WorkerId


def presence_of(me: WorkerId, grace: float = 5) -> Presence:
    """What the worker ``me`` knows of the others: nothing yet."""
    return Presence(grace, me, report_soon=lambda: None, request_presence=lambda: None)
