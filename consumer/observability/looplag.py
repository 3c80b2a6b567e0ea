"""Measures how late the event loop is. A late loop misses heartbeats."""

import asyncio
import time

from consumer.observability import metrics

EVERY = 0.5
"""How often (s) the lag is measured."""


async def measure() -> None:
    """Measure the lag of the event loop until cancelled."""
    while True:
        due = time.monotonic() + EVERY
        await asyncio.sleep(EVERY)
        metrics.LOOP_LAG.observe(max(0.0, time.monotonic() - due))
