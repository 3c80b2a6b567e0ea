"""The command line as people run it: ``mcp-sessions`` in a process of its own."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ECHO, Cluster
from tests.programs import PROGRAM, Process, start

TODO = [sys.executable, "-m", "consumer.processes.todo_server"]
SAMPLES = Path(__file__).resolve().parents[1] / "samples" / "call-events"


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What is on stdout, all of it."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error


class Cli:
    """Runs commands for one broker and prefix, on a screen of 80 columns unless it is said otherwise."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("MCP_SESSIONS_") and name not in {"AMQP_URL", "CLOUDAMQP_URL", "RABBITMQ_URL"}
        }
        self.environment = kept | {"COLUMNS": "80", "NO_COLOR": "1"} | environment

    async def start(self, *arguments: str, program: tuple[str, ...] = (str(PROGRAM),), anew: bool = False) -> Process:
        return await start(
            *program,
            *arguments,
            env=self.environment,
            cwd=self.folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            anew=anew,
        )

    async def __call__(self, *arguments: str, stdin: bytes = b"", **more: Any) -> Ran:
        process = await self.start(*arguments, **more)
        async with asyncio.timeout(90):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        ran = Ran(process.returncode, out.decode(), err.decode())
        assert "Traceback" not in ran.err, ran.err
        return ran


@pytest.fixture
def offline(tmp_path: Path) -> Cli:
    """Commands that need no broker, and find none."""
    return Cli(tmp_path, AMQP_URL="amqp://someone:hush@127.0.0.1:1/")


@pytest.fixture
def at(amqp_url: str, tmp_path: Path) -> Callable[[str], Cli]:
    """Commands on the broker, for a prefix."""
    return lambda prefix: Cli(tmp_path, AMQP_URL=amqp_url, MCP_SESSIONS_PREFIX=prefix)


@pytest.fixture
async def cli(mcp: Cluster, at: Callable[[str], Cli]) -> Cli:
    """Commands for a worker with the services ``todo`` and ``echo``, of which calls get the one that starts quickly."""
    services = {"todo": {"command": TODO, "description": "Things to do"}, "echo": {"command": ECHO}}
    await mcp.start({"services": services, "routes": [{"services": ["echo"]}]})
    return at(mcp.prefix)
