"""Listing sessions by RPC over three workers, and expiring many."""

import asyncio
from datetime import datetime

from scripts.benchmarks.measuring import Figures, figures, one_by_one, running
from tests.harness import config


async def measure(sessions: int = 120, workers: int = 3) -> Figures:
    """``sessions.list`` with so many sessions, and how late each of them expires."""
    async with running(config(), workers=workers) as mcp:
        names = [f"s-{number}" for number in range(sessions)]
        for start in range(0, sessions, 30):
            await asyncio.gather(*(mcp.client.create(name, "echo", timeout=15) for name in names[start : start + 30]))
        listed = figures(await one_by_one(lambda _: mcp.client.list_sessions(), 50))
        await mcp.until(lambda: len(mcp.of("expired")) == sessions, within=60)
        late = [
            event.time.timestamp() - datetime.fromisoformat(event.data["last_accessed"]).timestamp() - 15
            for event in mcp.of("expired")
        ]
    return {"sessions": sessions, "workers": workers, "list": listed, "expiry_lateness": figures(late)}
