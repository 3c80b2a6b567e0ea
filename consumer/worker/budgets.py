"""The time (s) that each step of a worker's shutdown may take. A hosting platform's kill timeout must exceed the sum.

The steps are those of ``consumer.worker.leaving``. ``infra/checks`` compares the sum with the limit of each platform.
"""

STOP_TAKING = 1.0
"""For stopping to place calls, and returning prefetched messages to the broker."""

TAKEN_TIMEOUT = 1.0
"""For finishing the received raw events, their results, and the requests to the cluster."""

STOP_PROCESSES = 4.0
"""For stopping processes. A server that ignores its end takes this long."""

FLUSH_TIMEOUT = 2.0

OTHER_NODES = 0.3
"""How long other nodes of a RabbitMQ cluster may still use a removed binding."""

INBOX_TIMEOUT = 1.0
GOODBYE = 0.7
"""For deleting the inbox, and closing channels and connections."""


def leaving_time(drain_timeout: float) -> float:
    """Return the longest time (s) that leaving takes, including ``drain_timeout``."""
    before = STOP_TAKING + 3 * TAKEN_TIMEOUT
    after = STOP_PROCESSES + FLUSH_TIMEOUT + OTHER_NODES + INBOX_TIMEOUT + GOODBYE
    return before + drain_timeout + after
