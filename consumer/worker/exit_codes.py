"""How a worker ends."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the worker."""

    DRAINED = 0
    BAD_CONFIGURATION = 2
    BROKER_UNREACHABLE = 3
    DRAIN_TIMED_OUT = 4
