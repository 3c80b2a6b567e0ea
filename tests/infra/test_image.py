"""What the image says of itself, tried without an engine: its health check asks a real worker."""

import asyncio
import json
import os
import re
import sys

import pytest

from consumer.settings.environment import variables
from infra.loopback import free_port
from tests.harness import ROOT, Cluster

PORT = "MCP_SESSIONS_HTTP_PORT"


def health_check() -> list[str]:
    """The command of HEALTHCHECK, with the Python of these tests."""
    found = re.search(r"^HEALTHCHECK .*? CMD (\[.*\])$", (ROOT / "infra" / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    program, *arguments = json.loads(found[1])
    assert program == "python"
    return [sys.executable, *arguments]


async def ask(port: int) -> int:
    process = await asyncio.create_subprocess_exec(
        *health_check(), env={**os.environ, PORT: str(port)}, stderr=asyncio.subprocess.DEVNULL
    )
    return await asyncio.wait_for(process.wait(), 30)


@pytest.mark.skipif(PORT not in variables(), reason="the worker has no health port yet")
async def test_the_health_check_tells_a_worker_that_lives_from_one_that_does_not(mcp: Cluster) -> None:
    port = free_port()
    worker = await mcp.start(None, **{PORT: str(port)})
    assert await ask(port) == 0
    await worker.kill()
    assert await ask(port) != 0
