"""``mcp-sessions workers``: who is there."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from consumer.cli.command import Invocation, command
from consumer.cli.screen import Row, age, answers, bar, say, state, table, write_json

if TYPE_CHECKING:
    from schemas.sessions import WorkerInfo


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "workers", epilog="Example: mcp-sessions workers")(list_workers)


async def list_workers(invocation: Invocation) -> None:
    """List the workers that are present, with their load."""
    async with invocation.client() as client:
        found = await client.list_workers()
    if invocation.json:
        write_json(found)
    elif found.workers:
        answers().print(workers_table(found.workers))
    else:
        say("No worker is present. Start one: mcp-sessions worker")


def workers_table(workers: "Collection[WorkerInfo]") -> Table:
    """A table of workers."""
    rows: list[Row] = [
        [
            worker.worker_id,
            state(worker.state),
            bar(worker.sessions, worker.capacity, f"{worker.sessions}/{worker.capacity}", full_is_bad=True),
            age(worker.started_at),
            worker.host,
            str(worker.pid),
            worker.version,
        ]
        for worker in workers
    ]
    return table("WORKER", "STATE", "SESSIONS", "UP", "HOST", "PID", "VERSION", rows=rows, right=["UP", "PID"])
