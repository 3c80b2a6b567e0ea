"""How long (s) a worker may take to leave, step by step; whoever ends it from outside has to wait for their sum.

The steps are those of ``consumer.worker.leaving``. ``infra/checks`` holds the limit of every platform against the sum.
"""

STOP_TAKING = 1.0
"""Placing no longer, and giving back what the broker had sent ahead."""

TAKEN_TIMEOUT = 1.0
"""For the raw events that were taken, for what they led to, and for the questions: one after the other."""

STOP_PROCESSES = 4.0
"""A server that ignores that it should end takes as long."""

FLUSH_TIMEOUT = 2.0

OTHER_NODES = 0.3
"""How long other nodes of a cluster may route by a binding that has been taken away."""

INBOX_TIMEOUT = 1.0
GOODBYE = 0.7
"""Deleting the inbox, closing channels and connections."""


def leaving_time(drain_timeout: float) -> float:
    """Return the longest time (s) that leaving takes, including ``drain_timeout``."""
    before = STOP_TAKING + 3 * TAKEN_TIMEOUT
    after = STOP_PROCESSES + FLUSH_TIMEOUT + OTHER_NODES + INBOX_TIMEOUT + GOODBYE
    return before + drain_timeout + after
