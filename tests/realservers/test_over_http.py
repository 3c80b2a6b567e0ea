"""A real server that is not a process of ours: it is reached by its URL."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from .conftest import Visiting
from .servers import Server, Servers

pytestmark = [pytest.mark.realservers, pytest.mark.timeout(150, func_only=True)]

READY_WITHIN = 15.0


class Remote:
    """A server that runs somewhere, and what it writes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def writes(self, words: str) -> None:
        """Wait until it writes a line with these words."""
        assert self.process.stdout is not None
        async with asyncio.timeout(READY_WITHIN):
            async for line in self.process.stdout:
                if words in line.decode():
                    return
        raise AssertionError(f"it ended without writing {words!r}")


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Remote]:
    process = await asyncio.create_subprocess_exec(
        *server.command,
        env={**os.environ, **server.env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        remote = Remote(process)
        await remote.writes("listening")
        yield remote
    finally:
        process.kill()
        await asyncio.wait_for(process.communicate(), 45)


async def test_server_everything_serves_a_session_by_http_and_is_told_of_its_end(servers: Servers, visit: Visiting):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = servers.everything_over_http(port)
    async with running(server) as remote:
        async with visit(server) as session:
            assert session.processes == []
            assert await session.says("echo", message="over there") == "Echo: over there"
            assert "demo://resource/static/document/features.md" in session.resources
            assert "simple-prompt" in session.prompts
        await remote.writes("Received session termination request")  # of the introduction
        await remote.writes("Received session termination request")
        assert remote.process.returncode is None
