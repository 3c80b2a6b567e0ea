"""``mcp-sessions workers``: who is there."""

from typing import Any

import typer
from rich.table import Table

from consumer.cli.command import Invocation, command
from consumer.cli.screen import age, answers, bar, say, state, table, write_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "workers", epilog="Example: mcp-sessions workers")(list_workers)


async def list_workers(invocation: Invocation) -> None:
    """List the workers that are present, and how full they are."""
    async with invocation.client() as client:
        workers = await client.list_workers()
    if invocation.json:
        write_json({"workers": workers})
    elif workers:
        answers().print(workers_table(workers))
    else:
        say("No worker is present. Start one: mcp-sessions worker")


def workers_table(workers: list[dict[str, Any]]) -> Table:
    """A table of workers."""
    rows = [
        [
            worker["worker_id"],
            state(worker["state"]),
            bar(worker["sessions"], worker["capacity"], f"{worker['sessions']}/{worker['capacity']}", full_is_bad=True),
            age(worker["started_at"]),
            worker["host"],
            str(worker["pid"]),
            worker["version"],
        ]
        for worker in workers
    ]
    return table("WORKER", "STATE", "SESSIONS", "UP", "HOST", "PID", "VERSION", rows=rows, right=["UP", "PID"])
