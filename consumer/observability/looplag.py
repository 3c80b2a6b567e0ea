"""How late the event loop is: a busy one misses heartbeats, and is late with everything else before that."""

import asyncio
import time

from consumer.observability import metrics

EVERY = 0.5
"""How often (s) it is looked at."""


async def measure() -> None:
    """Measure the lag of the event loop until cancelled."""
    while True:
        due = time.monotonic() + EVERY
        await asyncio.sleep(EVERY)
        metrics.LOOP_LAG.observe(max(0.0, time.monotonic() - due))
