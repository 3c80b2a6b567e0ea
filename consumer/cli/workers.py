"""``mcp-sessions workers``: lists the workers."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from consumer.cli import completing
from consumer.cli.command import Invocation, command, without_a_name
from consumer.cli.screen import Row, age, answers, bar, facts, say, state, table, tell_missing, write_json

if TYPE_CHECKING:
    from schemas.sessions import WorkerInfo


group = typer.Typer()


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="workers")


@without_a_name(group, epilog="Example: mcp-sessions workers")
async def show_workers(invocation: Invocation) -> None:
    """List the workers that are present, and show one of them."""
    await list_workers(invocation)


@command(group, "list", epilog="Example: mcp-sessions workers list")
async def list_workers(invocation: Invocation) -> None:
    """List the workers that are present, with their load. The same as "mcp-sessions workers"."""
    async with invocation.client() as client:
        found = await client.list_workers()
    if invocation.json:
        write_json(found)
    elif found.workers:
        answers().print(workers_table(found.workers))
    else:
        say("No worker is present. Start one: mcp-sessions worker")
    if not invocation.json:
        tell_missing(found.missing_workers)


@command(group, "get", epilog="Example: mcp-sessions workers get host-1-k3v9x2ab")
async def get_worker(
    invocation: Invocation,
    worker_id: Annotated[
        str,
        typer.Argument(
            metavar="WORKER", help="The worker's id; see 'workers list'.", autocompletion=completing.worker_ids
        ),
    ],
) -> None:
    """Show a worker, and the load of each of its services."""
    from consumer.cli.failing import failing_on, tell_failing, with_failing
    from consumer.cli.failures import NoSuchWorker

    async with invocation.client() as client:
        listed, failing = await asyncio.gather(client.list_workers(), failing_on(client, worker_id))
    found = listed.workers
    worker = next((one for one in found if one.worker_id == worker_id), None)
    if worker is None:
        raise NoSuchWorker(f"no worker {worker_id!r} is present")
    if invocation.json:
        write_json(with_failing(worker, failing))
        return
    screen = answers()
    screen.print(
        facts(
            ("worker", worker.worker_id),
            ("state", state(worker.state)),
            ("host", f"{worker.host}, pid {worker.pid}"),
            ("version", worker.version),
            ("up", f"{age(worker.started_at)} (since {worker.started_at.isoformat(timespec='seconds')})"),
            ("sessions", f"{worker.sessions} of {worker.capacity}"),
        )
    )
    screen.print()
    screen.print(services_table(worker, failing))
    tell_failing(failing)


def services_table(worker: "WorkerInfo", failing: "Collection[str]" = ()) -> Table:
    """Return a table of the services of a worker."""
    rows: list[Row] = [
        [
            name,
            state("disabled" if not load.enabled else "failing" if name in failing else "enabled"),
            bar(load.sessions, load.max_sessions, f"{load.sessions}/{load.max_sessions}", full_is_bad=True),
            str(load.warm),
            load.description,
        ]
        for name, load in sorted(worker.services.items())
    ]
    return table("SERVICE", "STATE", "SESSIONS", "WARM", "DESCRIPTION", rows=rows, right=["WARM"])


def workers_table(workers: "Collection[WorkerInfo]") -> Table:
    """Return a table of workers."""
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
    columns = ("WORKER", "STATE", "SESSIONS", "UP", "HOST", "PID", "VERSION")
    return table(*columns, rows=rows, right=["UP", "PID"], whole=["WORKER"])
