"""Whole calls: from the raw event to the session and back, as many as one worker can take."""

import asyncio
import time

import psutil

from scripts.benchmarks.measuring import Figures, figures, processor_seconds, running
from tests.harness import config


async def measure(calls: int = 200, at_once: int = 30) -> Figures:
    """Calls that start and end as quickly as they can, ``at_once`` of them at any time."""
    async with running(config(session={"max_sessions_per_service": calls + 1})) as mcp:
        room = asyncio.Semaphore(at_once)
        opened: list[float] = []

        async def call(number: int) -> None:
            name = f"call-{number}"
            async with room:
                began = time.perf_counter()
                await mcp.client.publish_call_event({"call_id": name, "kind": "started"})
                await mcp.event("created", session_id=name, within=60)
                opened.append(time.perf_counter() - began)
                await mcp.client.publish_call_event({"call_id": name, "kind": "ended"})
                await mcp.event("closed", session_id=name, within=60)

        worker = [psutil.Process(mcp.workers[0].process.pid)]
        before = processor_seconds(worker)
        began = time.perf_counter()
        await asyncio.gather(*(call(number) for number in range(calls)))
        took = time.perf_counter() - began
        spent = processor_seconds(worker) - before
    return {
        "calls_per_second": round(calls / took, 1),
        "event_to_session": figures(opened),
        "worker_cpu_ms_per_call": round(spent / calls * 1000, 2),
    }
