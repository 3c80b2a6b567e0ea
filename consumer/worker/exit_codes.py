"""Exit codes of the worker."""

from enum import IntEnum


class WorkerExit(IntEnum):
    """The exit code of a worker."""

    DRAINED = 0
    BAD_CONFIGURATION = 2
    BROKER_UNREACHABLE = 3
    DRAIN_TIMED_OUT = 4
