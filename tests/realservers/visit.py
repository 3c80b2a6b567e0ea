"""A visit to one server: a session of a real worker, used through the client, and looked at from outside."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from consumer.processes.client.era import Era
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.service import MCPService
from schemas.base import Json
from schemas.errors import McpError
from tests.harness import Cluster, WorkerProcess

from .endpoint import seen
from .servers import Server
from .table import Row, Table

GONE_WITHIN = 5.0
KEEPER = "keeper_child.py"
"""The worker's own helper, which is no server."""


class Visit:
    """The session ``session_id``: what it offers, what answers it gives, and what it is in the eyes of the system."""

    def __init__(self, mcp: Cluster, row: Row, session_id: str, processes: list[psutil.Process]) -> None:
        self._mcp = mcp
        self._row = row
        self.session_id = session_id
        self.protocol = row.protocol
        self.processes = processes
        self.folder = Path(processes[0].cwd()) if processes else None
        self.tools: list[str] = []
        self.resources: list[str] = []
        self.prompts: list[str] = []

    async def look_around(self) -> None:
        """List what there is; a server that knows no resources or prompts says so, which is no fault."""
        client = self._mcp.client
        self.tools = [tool.name for tool in (await client.list_tools(self.session_id)).tools]
        self._row.tools = len(self.tools)
        with suppress(McpError):
            self.resources = [one.uri for one in (await client.list_resources(self.session_id)).resources]
            self._row.resources = len(self.resources)
        with suppress(McpError):
            self.prompts = [one.name for one in (await client.list_prompts(self.session_id)).prompts]
            self._row.prompts = len(self.prompts)

    async def call(self, tool: str, /, **arguments: Any) -> Json:
        """Call a tool; its whole answer. The server must speak to the worker as it did when it introduced itself."""
        assert tool in self.tools
        answer = await self._mcp.client.call_tool(self.session_id, tool, arguments)
        self._row.called.append(tool)
        assert answer.session_id == self.session_id
        assert ("result_type" in answer.model_fields_set) == (self.protocol >= "2026"), (
            "a modern result says what type it is of"
        )
        return answer.model_dump(by_alias=True, exclude_unset=True)

    async def says(self, tool: str, /, **arguments: Any) -> str:
        """Call a tool that succeeds; the text of its answer."""
        answer = await self.call(tool, **arguments)
        assert not answer.get("isError"), answer
        return str(answer["text"])

    async def refuses(self, tool: str, /, **arguments: Any) -> str:
        """Call a tool that fails in the server's own way, which is a result; its text."""
        answer = await self.call(tool, **arguments)
        assert answer["isError"] is True
        return str(answer["text"])

    async def read(self, uri: str) -> Json:
        """The one content of a resource."""
        (content,) = (await self._mcp.client.read_resource(self.session_id, uri)).contents
        assert content.uri == uri
        return content.model_dump(by_alias=True, exclude_unset=True)

    async def prompt(self, name: str, /, **arguments: str) -> list[Json]:
        """What the messages of a prompt contain."""
        result = await self._mcp.client.get_prompt(self.session_id, name, arguments)
        return [dict(message.content) for message in result.messages]


@asynccontextmanager
async def visiting(mcp: Cluster, table: Table, server: Server) -> AsyncIterator[Visit]:
    """A session of ``server`` on a worker of its own; afterwards nothing of it is left, and the table has a row."""
    row = Row(server)
    table.rows.append(row)
    introducing = asyncio.create_task(introduction(server), name="introduction")
    worker = await mcp.start({"services": {server.name: server.configured()}})
    row.protocol = await introducing
    began = time.monotonic()
    info = await mcp.client.create("visit", server.name)
    row.start = time.monotonic() - began
    assert info.is_alive
    visit = Visit(mcp, row, "visit", servers_of(worker))
    row.processes = len(visit.processes)
    await visit.look_around()
    row.seen = await seen(mcp, server.name, "visit")
    for era in row.seen.values():
        assert era.get("tools", []) == visit.tools
        assert era.get("resources", []) in (visit.resources, [])
        assert era.get("prompts", []) in (visit.prompts, [])
    yield visit
    row.memory = memory_of(visit.processes) if visit.processes else None
    began = time.monotonic()
    await mcp.client.close("visit")
    await all_gone(visit.processes)
    row.end = time.monotonic() - began
    assert servers_of(worker) == []
    assert visit.folder is None or not visit.folder.exists()
    await mcp.event("closed", session_id="visit", reason="requested")
    row.result = "works"


async def introduction(server: Server) -> str:
    """The protocol version that a server agrees to, asked by the worker's own client; the wire does not tell it."""
    client = MCPClient(MCPService.model_validate({"name": server.name, **server.configured()}))
    try:
        await client.start()
        version = client.session.protocol_version
        assert version is not None
        assert (client.era is Era.MODERN) == (version >= "2026")
        return version
    finally:
        await client.stop()


def servers_of(worker: WorkerProcess) -> list[psutil.Process]:
    """The processes below a worker that are servers or were started by one; the first is the oldest."""
    return [process for process in worker.children() if KEEPER not in " ".join(command_of(process))]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return [KEEPER]  # neither is left


def memory_of(processes: list[psutil.Process]) -> int:
    """Bytes: what these processes have for themselves, and their share of what they share, where the system tells."""
    infos = [process.memory_full_info() for process in processes]
    return sum(int(getattr(info, "pss", info.rss)) for info in infos)


async def all_gone(processes: list[psutil.Process]) -> None:
    """Wait until processes that were told to end have ended."""
    _, alive = psutil.wait_procs(processes, timeout=GONE_WITHIN)
    assert alive == []
