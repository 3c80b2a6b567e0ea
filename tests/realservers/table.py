"""The table of ``docs/servers.md``: what a run of these tests has seen."""

import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .servers import Server

HEAD = """\
# MCP servers

These MCP servers of other projects work with mcp-sessions. `scripts/realservers` made this page: it opened a session of
each server on a worker with a real RabbitMQ, used it through `SessionClient`, and closed it, all without the internet.
The figures are of one run on {day}, on a machine of {cores} cores with Python {python}: they are rounded, and show
orders of magnitude.

*Start* is the time from `session.create` to its reply: placing, process, handshake, list of tools. *Memory* is the
share of a session's processes (PSS) after its calls. *End* is the time from `session.close` until no process is left.
Protocol 2026-07-28 is the era without a handshake. A dash means that the server does not offer this, or that it cannot
be measured.

"""
THROUGH = """
## Through the MCP endpoint

The official Python client used the same sessions through the gateway's [MCP endpoint](guides/mcp-clients.md), in both
eras: with `initialize` (2025-11-25) and without (2026-07-28). Which of them the server speaks does not matter. Each
time the client found the same names as over RabbitMQ. Run on {day}.

"""
COLUMNS = (
    "server",
    "version",
    "SDK",
    "by",
    "protocol",
    "start",
    "tools",
    "resources",
    "prompts",
    "called",
    "memory",
    "processes",
    "end",
    "result",
)
NOTHING = "-"
OF_ITSELF = 1.5
"""Seconds that a server has to leave by itself after the end of its input; then it is told to."""


@dataclass(slots=True)
class Row:
    """What was seen of one server."""

    server: Server
    protocol: str = ""
    start: float | None = None
    tools: int | None = None
    resources: int | None = None
    prompts: int | None = None
    called: list[str] = field(default_factory=list)
    memory: int | None = None
    processes: int | None = None
    end: float | None = None
    result: str = "did not get to its end"
    seen: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """What a client of each era saw of it through the endpoint."""

    def cells(self) -> list[str]:
        """The cells, in the order of ``COLUMNS``."""
        return [
            f"`{self.server.package}`",
            self.server.version,
            self.server.sdk,
            self.server.by,
            self.protocol or NOTHING,
            _seconds(self.start),
            _count(self.tools),
            _count(self.resources),
            _count(self.prompts),
            ", ".join(f"`{name}`" for name in dict.fromkeys(self.called)) or NOTHING,
            _megabytes(self.memory),
            _count(self.processes),
            _seconds(self.end),
            self.result,
        ]


class Table:
    """The rows, in the order of the tests."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def markdown(self) -> str:
        """The whole page."""
        day = datetime.now(UTC).date().isoformat()
        head = HEAD.format(day=day, cores=os.cpu_count(), python=platform.python_version())
        lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells() for row in self.rows)]
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        return f"{head}{table}{THROUGH.format(day=day)}{self._through()}\n## Worth knowing\n\n" + "".join(
            f"- {note}.\n" for note in self.notes()
        )

    def _through(self) -> str:
        eras = list(dict.fromkeys(era for row in self.rows for era in row.seen))
        lines = [["server", "by", "its protocol", *eras], ["---"] * (3 + len(eras))]
        for row in self.rows:
            if row.seen:
                told = [_shown(row.seen[era]) for era in eras]
                lines.append([f"`{row.server.package}`", row.server.by, row.protocol, *told])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def notes(self) -> list[str]:
        """What is worth knowing, of each server once."""
        slow = [f"`{row.server.name}`" for row in self.rows if (row.end or 0.0) >= OF_ITSELF]
        ended = f"{', '.join(slow)} had to be told to leave" if slow else "all of them left"
        said = dict.fromkeys(f"`{row.server.name}` {row.server.note}" for row in self.rows if row.server.note)
        return [f"When their input ended, {ended}", *said]


def _shown(seen: dict[str, list[str]]) -> str:
    kinds = [kind for kind in ("tools", "resources", "prompts") if kind in seen]
    counts = [f"{len(seen[kind])} {kind if len(seen[kind]) != 1 else kind[:-1]}" for kind in kinds]
    return ", ".join([*counts, *seen["offered"]])


def _seconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.1f} s" if value >= 0.05 else "under 0.1 s"


def _count(value: int | None) -> str:
    return NOTHING if value is None else str(value)


def _megabytes(value: int | None) -> str:
    return NOTHING if value is None else f"{round(value / 1e6)} MB"
