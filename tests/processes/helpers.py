"""What the tests of this folder share."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import psutil

from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.launch.launcher import Launcher
from consumer.processes.service import MCPService
from consumer.sessions.session import ProcessExit
from tests.harness import OPEN

SERVERS = Path(__file__).parents[1] / "servers"


def command(name: str, *switches: str) -> list[str]:
    """The command of a server of ``tests/servers``."""
    return [sys.executable, str(SERVERS / f"{name}.py"), *switches]


def service(name: str = "echo_server", *switches: str, **settings: Any) -> MCPService:
    """A service of a server of ``tests/servers``; a sandbox whose kind is not given is :data:`OPEN`."""
    sandbox = settings.pop("sandbox", {})
    sandbox = sandbox if "kind" in sandbox else {**OPEN, **sandbox}
    return MCPService.model_validate(
        {"name": "svc", "command": command(name, *switches), "sandbox": sandbox} | settings
    )


class Start(Protocol):
    async def __call__(self, name: str = "echo_server", *switches: str, **settings: Any) -> MCPClient: ...


class Starts:
    """Starts clients and stops them all."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._clients: list[MCPClient] = []

    async def __call__(self, name: str = "echo_server", *switches: str, **settings: Any) -> MCPClient:
        client = MCPClient(service(name, *switches, **settings), launcher=self._launcher)
        self._clients.append(client)
        await client.start()
        return client

    async def stop(self) -> None:
        await asyncio.gather(*(client.stop() for client in self._clients))


async def until(true: Callable[[], Any], otherwise: str, timeout: float = 45.0) -> None:
    """Wait until something is true that no event tells of."""
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.01)
    assert true(), otherwise


def runs(pid: int) -> bool:
    """Whether a process runs; a zombie, which only waits to be noticed by its parent, does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def text(result: dict[str, Any]) -> str:
    """The text of a result's first content."""
    found = result["content"][0]["text"]
    assert isinstance(found, str)
    return found


def structured(result: dict[str, Any]) -> dict[str, Any]:
    """The structured content of a result."""
    found = result["structuredContent"]
    assert isinstance(found, dict)
    return found


class Exits:
    """An ``on_exit`` callback that can be waited for."""

    def __init__(self) -> None:
        self.seen: list[ProcessExit] = []
        self._first = asyncio.Event()

    def __call__(self, seen: ProcessExit) -> None:
        self.seen.append(seen)
        self._first.set()

    async def first(self, timeout: float = 5.0) -> ProcessExit:
        async with asyncio.timeout(timeout):
            await self._first.wait()
        return self.seen[0]
