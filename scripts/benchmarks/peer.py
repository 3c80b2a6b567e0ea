"""SignalWire's own gateway, which keeps MCP servers for calls behind HTTP: installed apart, and never a dependency.

It runs on loopback with the same servers. Its rate limits are lifted, and what a server writes to stderr goes to
``/dev/null``: the gateway reads it nowhere, so a server that logs hangs once the pipe is full, after some 140 calls.
Its limits of processes and memory are off, because the former counts all of a user's processes.
"""

import asyncio
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from infra.environments import environment
from scripts.benchmarks.http_client import Http, free_port, tool_call
from scripts.benchmarks.measuring import end_all, until
from scripts.benchmarks.report import Sample

PACKAGE = "signalwire-sdk[mcp-gateway]"
MODULE = "signalwire.mcp_gateway.gateway_service"
AGENT = Path(__file__).with_name("peer_agent.py")
FOLDER = Path(__file__).resolve().parents[2] / ".peer"
START_TIMEOUT = 60.0
LINE_LIMIT = 16 << 20
NO_LIMIT = "1000000 per second"
USER = "bench"


def install() -> Path:
    """The Python of an environment that has the gateway; made in ``.peer``, once."""
    return environment(FOLDER, [PACKAGE])


def version(python: Path) -> str:
    """The version of the gateway's package."""
    asked = "import importlib.metadata as found; print(found.version('signalwire-sdk'))"
    told = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    return told.stdout.strip()


class PeerGateway:
    """A client of a gateway that runs; each request has a connection of its own, because that is what it offers."""

    def __init__(self, port: int, password: str) -> None:
        self.http = Http(port, USER, password)
        self.login = self.http.url, USER, password

    async def call(self, service: str, session: str, tool: str, arguments: dict[str, Any]) -> None:
        """Call a tool; the first call of a session starts its server."""
        await self.http.request("POST", f"/services/{service}/call", tool_call(session, tool, arguments))

    async def close(self, session: str) -> None:
        """Close a session."""
        await self.http.request("DELETE", f"/sessions/{session}")

    async def healthy(self) -> bool:
        """Whether it answers."""
        return await self.http.answers("/health")


class Agent:
    """An agent of SignalWire's SDK, which calls tools through the client that the SDK has for its gateway."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def busy(self, seconds: float, callers: int, **what: Any) -> Sample:
        """As :func:`~scripts.benchmarks.measuring.for_a_while`, with a thread for each caller."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"seconds": seconds, "callers": callers} | what).encode() + b"\n")
        return Sample.of(await self.told())

    async def told(self) -> Any:
        """What it says next; raises :class:`RuntimeError` when it has ended instead."""
        assert self._process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the agent of SignalWire's SDK has ended")
        return json.loads(line)


@asynccontextmanager
async def agent(python: Path, gateway: PeerGateway, service: str) -> AsyncIterator[Agent]:
    """An agent that uses one service of a gateway; it is gone at the end."""
    process = await asyncio.create_subprocess_exec(
        *(python, AGENT, *gateway.login, service),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=LINE_LIMIT,
    )
    try:
        made = Agent(process)
        await made.told()  # that it is ready
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def gateway(python: Path, services: dict[str, list[str]]) -> AsyncIterator[PeerGateway]:
    """A gateway with these commands; it and its servers are gone at the end."""
    with tempfile.TemporaryDirectory(prefix="mcp-sessions-peer-") as folder:
        port, password = free_port(), secrets.token_hex(8)
        process = _start(python, Path(folder), _configuration(port, password, services))
        try:
            client = PeerGateway(port, password)
            await until(client.healthy, "answer of the gateway", within=START_TIMEOUT, pause=0.1)
            yield client
        finally:
            await asyncio.to_thread(_end, process)


def _start(python: Path, folder: Path, configuration: dict[str, Any]) -> "subprocess.Popen[bytes]":
    config = folder / "config.json"
    config.write_text(json.dumps(configuration))
    with (folder / "gateway.log").open("w") as log:
        return subprocess.Popen(
            [python, "-m", MODULE, "--config", config],
            cwd=folder,
            env=os.environ | {"PYTHONSAFEPATH": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill it with its servers: it would end them one after the other."""
    left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    for server in left:
        with suppress(psutil.NoSuchProcess):
            server.kill()
    process.wait(timeout=10)
    end_all(left, timeout=10.0)


def _configuration(port: int, password: str, services: dict[str, list[str]]) -> dict[str, Any]:
    limits = ("tools_limit", "call_limit", "session_delete_limit")
    return {
        "server": {"host": "127.0.0.1", "port": port, "auth_user": USER, "auth_password": password},
        "services": {
            name: {
                "command": ["/bin/sh", "-c", 'exec "$@" 2>/dev/null', "sh", *command],
                "sandbox": {"enabled": True, "resource_limits": False, "restricted_env": True},
            }
            for name, command in services.items()
        },
        "session": {"default_timeout": 3600, "max_sessions_per_service": 1000},
        "rate_limiting": {"default_limits": [NO_LIMIT], **dict.fromkeys(limits, NO_LIMIT)},
    }
