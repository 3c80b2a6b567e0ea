"""The bridge as a process, between a stand-in for Asterisk and a real RabbitMQ with real workers."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests import programs
from tests.bridges.standin import PASSWORD, USER, Ami, Ari
from tests.harness import START, Cluster, WorkerProcess
from tests.programs import PROGRAM

Bridging = Callable[..., Awaitable[WorkerProcess]]


@pytest.fixture(params=["ari", "ami"])
async def pbx(request: Any) -> AsyncIterator[Ari | Ami]:
    stand_in: Ari | Ami = Ari() if request.param == "ari" else Ami()
    async with stand_in.serving():
        yield stand_in


@pytest.fixture
async def ari() -> AsyncIterator[Ari]:
    async with Ari().serving() as stand_in:
        yield stand_in


@pytest.fixture
async def ami() -> AsyncIterator[Ami]:
    async with Ami().serving() as stand_in:
        yield stand_in


async def spawned(mcp: Cluster, pbx: Ari | Ami, *options: str, **env: str) -> WorkerProcess:
    """A bridge that has been started, and nothing more."""
    settings = {
        "AMQP_URL": mcp.url,
        "MCP_SESSIONS_PREFIX": mcp.prefix,
        "MCP_SESSIONS_LOG_FORMAT": "json",
        "MCP_SESSIONS_ASTERISK_URL": pbx.url,
        "MCP_SESSIONS_ASTERISK_USER": USER,
        "MCP_SESSIONS_ASTERISK_PASSWORD": PASSWORD,
    }
    process = await programs.start(
        PROGRAM, "bridge", "asterisk", *options,
        env={**os.environ, **settings, **env}, cwd=mcp.folder,
        stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    return WorkerProcess(process, mcp.folder / f"bridge-{process.pid}.log", lambda: None)


@pytest.fixture
async def bridging() -> AsyncIterator[Bridging]:
    """Starts bridges and waits until they hear; they end with the test."""
    made: list[WorkerProcess] = []

    async def start(mcp: Cluster, pbx: Ari | Ami, *options: str, **env: str) -> WorkerProcess:
        made.append(await spawned(mcp, pbx, *options, **env))
        await made[-1].logged("bridge.ready", within=START)
        await made[-1].logged("pbx.attached")
        return made[-1]

    yield start
    for one in made:
        await one.kill()
