"""Tool calls: round trip over AMQP against the SDK's client alone, and calls per second over many sessions."""

import asyncio
import time

import psutil

from scripts.benchmarks.measuring import Figures, figures, one_by_one, processor_seconds, ratio, running, sdk_client
from tests.harness import ECHO, Cluster, config

WARM_UP = 200


async def _alone(calls: int) -> Figures:
    async with sdk_client(ECHO) as client:
        await client.list_tools()
        await one_by_one(lambda _: client.call_tool("echo", {"text": "warm"}), WARM_UP)
        return figures(await one_by_one(lambda _: client.call_tool("echo", {"text": "hello"}), calls))


async def _over_amqp(mcp: Cluster, calls: int) -> Figures:
    await mcp.client.create("single", "echo")
    await one_by_one(lambda _: mcp.client.call_tool("single", "echo", {"text": "warm"}), WARM_UP)
    return figures(await one_by_one(lambda _: mcp.client.call_tool("single", "echo", {"text": "hello"}), calls))


async def _throughput(mcp: Cluster, sessions: int, calls: int) -> Figures:
    names = [f"many-{number}" for number in range(sessions)]
    await asyncio.gather(*(mcp.client.create(name, "echo") for name in names))
    left = iter(range(calls))

    async def caller(name: str) -> None:
        for _ in left:
            await mcp.client.call_tool(name, "echo", {"text": "hello"})

    worker = psutil.Process(mcp.workers[0].process.pid)
    sides = {"client": [psutil.Process()], "worker": [worker], "servers": worker.children(recursive=True)}
    before = {side: processor_seconds(processes) for side, processes in sides.items()}
    began = time.perf_counter()
    await asyncio.gather(*(caller(name) for name in names for _ in range(4)))
    took = time.perf_counter() - began
    spent = {side: processor_seconds(processes) - before[side] for side, processes in sides.items()}
    return {
        "calls_per_second": round(calls / took),
        "cpu_ms_per_call": {side: round(seconds / calls * 1000, 3) for side, seconds in spent.items()},
    }


async def measure(calls: int = 1000, sessions: int = 12) -> Figures:
    """A trivial tool of a trivial server."""
    async with running(config()) as mcp:
        alone = await _alone(calls)
        ours = await _over_amqp(mcp, calls)
        throughput = await _throughput(mcp, sessions, calls * 4)
    return {
        "sdk_alone": alone,
        "over_amqp": ours,
        "ratio": ratio(ours, alone),
        "added_ms": round(ours["median_ms"] - alone["median_ms"], 3),
        "sessions": sessions,
        **throughput,
    }
