"""How each server is configured as a service, and what is worth knowing about it."""

import json
import os
from dataclasses import dataclass, field, replace
from typing import Any

from .install import Installed, version_of

NAMESPACE = "@modelcontextprotocol"


@dataclass(frozen=True, slots=True)
class Server:
    """A server of somebody else's; ``by`` is how it is reached, ``note`` what the docs tell of it."""

    package: str
    version: str
    sdk: str
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    by: str = "stdio"
    url: str | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """The service."""
        return self.package.rpartition("/")[2]

    def configured(self, **more: Any) -> dict[str, Any]:
        """What ``[services.<name>]`` says; with a sandbox that lets the tests see folders and processes as they are."""
        sandbox = {"sandbox": {"kind": "limits", "user": "worker"}}
        way = {"url": self.url} if self.url else {"command": self.command, "env": self.env} | sandbox
        return way | more


class Servers:
    """All of them, from where they are installed."""

    def __init__(self, installed: Installed) -> None:
        self.installed = installed

    def everything(self) -> Server:
        return self._of_npm("server-everything")

    def everything_over_http(self, port: int) -> Server:
        server = self._of_npm("server-everything", "streamableHttp")
        return replace(server, env={"PORT": str(port)}, by="HTTP", url=f"http://127.0.0.1:{port}/mcp")

    def filesystem(self) -> Server:
        note = 'takes the folders that it may touch as arguments; `"."` is the session\'s own folder'
        return replace(self._of_npm("server-filesystem", "."), note=note)

    def memory(self) -> Server:
        server = self._of_npm("server-memory")
        keep = 'MEMORY_FILE_PATH="$HOME/memory.jsonl" exec "$@"'
        return replace(
            server,
            command=["/bin/sh", "-c", keep, "sh", *server.command],
            note="writes beside its own program, so that all calls share one memory, unless `MEMORY_FILE_PATH` is an "
            f"absolute path; a memory for each call: `sh -c '{keep}' sh node …/index.js`",
        )

    def sequential_thinking(self) -> Server:
        return self._of_npm("server-sequential-thinking")

    def sequential_thinking_by_npx(self) -> Server:
        node = str(self.installed.node.parent)
        return replace(
            self.sequential_thinking(),
            command=self.installed.npx("mcp-server-sequential-thinking"),
            env={"PATH": os.pathsep.join([node, os.environ.get("PATH") or os.defpath])},
            by="stdio, `npx`",
            note="by `npx` costs a second Node process and a shell for as long as the session lasts and, without "
            "`--offline`, a look at the registry at every start: install servers, and start them with `node`",
        )

    def time(self) -> Server:
        return self._of_pypi("today", "mcp-server-time")

    def git(self, repository: str) -> Server:
        who = {"NAME": "Ann Operator", "EMAIL": "ann@example.org"}
        return replace(
            self._of_pypi("today", "mcp-server-git", "--repository", repository),
            env={f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in who.items()},
            note="cannot make a repository; HOME is the session's own, so who commits is said in `env`",
        )

    def fetch(self) -> Server:
        return replace(
            self._of_pypi("today", "mcp-server-fetch", "--allow-private-ips"),
            env={"PATH": str(self.installed.today)},
            note="runs `npm install` in the middle of its first call when it finds Node on its PATH; here it is given "
            "a PATH without, and simplifies pages in Python",
        )

    def sqlite_of_today(self) -> Server:
        return replace(
            self._of_pypi("today", "mcp-server-sqlite", "--db-path", "./calls.db"),
            note="asks for any mcp from 1.6 on and breaks with 2.x: pin `mcp<2` beside it",
        )

    def sqlite(self) -> Server:
        return self._of_pypi("before", "mcp-server-sqlite", "--db-path", "./calls.db")

    def calculator(self) -> Server:
        return replace(
            self._of_pypi("before", "mcp-server-calculator"),
            note="and all others on mcp 1.x write a hundred lines and more to stderr when they are asked which era "
            "they speak (`server/discover`), and answer all the same; a worker asks once for each service",
        )

    def shell(self, *allowed: str) -> Server:
        return replace(self._of_pypi("before", "mcp-shell-server"), env={"ALLOW_COMMANDS": ",".join(allowed)})

    def _of_npm(self, name: str, *arguments: str) -> Server:
        package = f"{NAMESPACE}/{name}"
        sdk = json.loads((self.installed.modules / NAMESPACE / "sdk" / "package.json").read_text())["version"]
        command = [*self.installed.module(name), *arguments]
        return Server(package, version_of(package, "node"), f"TypeScript {sdk}", command)

    def _of_pypi(self, environment: str, name: str, *arguments: str) -> Server:
        programs = {"today": self.installed.today, "before": self.installed.before}[environment]
        sdk = f"Python {version_of('mcp', environment)}"
        return Server(name, version_of(name, environment), sdk, [str(programs / name), *arguments])
