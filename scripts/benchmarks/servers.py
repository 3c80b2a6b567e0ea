"""The MCP servers that are measured: one in the standard library, one on the SDK, and one of somebody else's."""

import sys
from dataclasses import dataclass
from typing import Any

from tests.harness import ECHO
from tests.realservers.install import FOLDER, python_environment


@dataclass(frozen=True, slots=True)
class MeasuredServer:
    """A server with a tool that costs nothing; ``function`` is what a fork server runs."""

    name: str
    command: list[str]
    function: str
    tool: str
    arguments: dict[str, Any]

    @property
    def key(self) -> str:
        """Its name as that of a service."""
        return self.name.replace(" ", "-")

    @property
    def cold(self) -> dict[str, Any]:
        """As a service that starts a process for each session."""
        return {"command": self.command}

    @property
    def forked(self) -> dict[str, Any]:
        """As a service that forks."""
        return {"command": self.command, "fork_server": self.function}

    def warm(self, count: int) -> dict[str, Any]:
        """As a service with so many processes ahead of calls."""
        return {"command": self.command, "warm": {"min": count, "max": count}}


PLAIN = MeasuredServer("standard library", ECHO, "echo_server:main", "echo", {"text": "hello"})
ON_SDK = MeasuredServer(
    "SDK",
    [sys.executable, "-m", "consumer.processes.todo_server"],
    "consumer.processes.todo_server:server.run",
    "list_todos",
    {},
)


def time_server(*, install: bool) -> MeasuredServer | None:
    """``mcp-server-time`` from PyPI, installed where the tests of such servers install it; none where it is not."""
    program = FOLDER / "today" / "bin" / "mcp-server-time"
    if install:
        program = python_environment("today") / "mcp-server-time"
    if not program.exists():
        return None
    return MeasuredServer(
        "mcp-server-time", [str(program)], "mcp_server_time:main", "get_current_time", {"timezone": "Europe/Berlin"}
    )
