"""A worker that is asked over HTTP."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness import WAIT, Cluster, WorkerProcess

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass
class Watched:
    """A worker and its port."""

    worker: WorkerProcess
    http: httpx2.AsyncClient
    seen: dict[str, set[float]] = field(default_factory=lambda: defaultdict(set))
    """The values that each series has had, its labels summed up, as often as somebody looked."""

    async def ready(self) -> tuple[int, dict[str, Any]]:
        answer = await self.http.get("/readyz")
        return answer.status_code, answer.json()

    async def until_ready(self, status: int, **told: Any) -> dict[str, Any]:
        """Ask until the answer has this status and tells these values."""
        async with asyncio.timeout(2 * WAIT):
            while True:
                found, body = await self.ready()
                if found == status and body | told == body:
                    return body
                await asyncio.sleep(0.02)

    async def series(self) -> Series:
        """Every series of the worker's own metrics, with its value."""
        answer = await self.http.get("/metrics")
        assert answer.status_code == 200
        found = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name.startswith("mcp_sessions_")
        }
        sums: dict[str, float] = defaultdict(float)
        for (name, _), value in found.items():
            sums[name] += value
        for name, value in sums.items():
            self.seen[name].add(value)
        return found

    async def value(self, name: str, **labels: str) -> float:
        return (await self.series()).get((f"mcp_sessions_{name}", frozenset(labels.items())), 0.0)

    async def until(self, condition: Callable[[float], bool], name: str, **labels: str) -> float:
        """Ask until a series has a value that satisfies ``condition``."""
        async with asyncio.timeout(2 * WAIT):
            while not condition(value := await self.value(name, **labels)):
                await asyncio.sleep(0.02)
        return value


async def watched(
    mcp: Cluster, clients: list[httpx2.AsyncClient], configuration: dict[str, Any], *options: str, **env: str
) -> Watched:
    """Start a worker that serves on a port of the system's choice."""
    worker = await mcp.start(configuration, *options, MCP_SESSIONS_HTTP_PORT="0", **env)
    address = await worker.logged("http.listening")
    http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{address['port']}", trust_env=False)
    clients.append(http)
    return Watched(worker, http)


@pytest.fixture
async def clients() -> AsyncIterator[list[httpx2.AsyncClient]]:
    made: list[httpx2.AsyncClient] = []
    yield made
    for one in made:
        await one.aclose()
