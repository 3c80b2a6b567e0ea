"""What all measurements share: figures of a list of durations, processor time, and the references."""

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil
from mcp import Client, StdioServerParameters

from tests.harness import Cluster, cluster

Figures = dict[str, Any]


def figures(seconds: list[float]) -> Figures:
    """Median, 99th percentile and number, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "median_ms": round(statistics.median(ordered) * 1000, 3),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 3),
        "n": len(ordered),
    }


def ratio(ours: Figures, reference: Figures) -> float:
    """How many times the reference's median ours is."""
    return round(float(ours["median_ms"]) / float(reference["median_ms"]), 2)


async def duration(work: Awaitable[Any]) -> float:
    """How long something takes (s)."""
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def one_by_one(call: Callable[[int], Awaitable[Any]], times: int) -> list[float]:
    """How long each of so many takes, one after the other."""
    return [await duration(call(number)) for number in range(times)]


async def at_once(call: Callable[[int], Awaitable[Any]], times: int) -> float:
    """How long so many take together."""
    return await duration(asyncio.gather(*(call(number) for number in range(times))))


def processor_seconds(processes: list[psutil.Process]) -> float:
    """What processes have used of the processors so far."""
    times = [process.cpu_times() for process in processes]
    return sum(float(one.user + one.system) for one in times)


@asynccontextmanager
async def running(configuration: dict[str, Any], *, workers: int = 1) -> AsyncIterator[Cluster]:
    """Workers on a prefix of their own."""
    async with cluster(os.environ["AMQP_URL"], f"bench-{os.getpid()}-{time.monotonic_ns()}") as mcp:
        for _ in range(workers):
            await mcp.start(configuration)
        yield mcp


@asynccontextmanager
async def sdk_client(command: list[str]) -> AsyncIterator[Client]:
    """The official client alone, on the same server: the reference."""
    async with Client(StdioServerParameters(command=command[0], args=command[1:])) as client:
        yield client


async def sdk_start(command: list[str]) -> None:
    """Start a server through the official client alone, list its tools, and end it."""
    async with sdk_client(command) as client:
        await client.list_tools()
