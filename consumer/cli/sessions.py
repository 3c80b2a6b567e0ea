"""``mcp-sessions sessions``: lists, opens and closes sessions by hand."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from consumer.cli import completing
from consumer.cli.command import Invocation, command
from consumer.cli.screen import Row, age, answers, bar, duration, facts, say, state, table, write_json
from consumer.cli.typed_values import json_object

if TYPE_CHECKING:
    from schemas.sessions import SessionInfo

group = typer.Typer(help="List, open and close sessions by hand.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="sessions")


SessionArgument = Annotated[
    str,
    typer.Argument(
        metavar="SESSION",
        help="The session's id: CALL, or CALL#SERVICE for a further service of the call.",
        autocompletion=completing.session_ids,
    ),
]


@command(group, "list", epilog="Example: mcp-sessions sessions list --service todo")
async def list_sessions(
    invocation: Invocation,
    service: Annotated[
        str | None,
        typer.Option(metavar="SERVICE", help="Only sessions of this service.", autocompletion=completing.service_names),
    ] = None,
    call: Annotated[
        str | None, typer.Option(metavar="CALL", help="Only sessions of this call.", autocompletion=completing.call_ids)
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option(metavar="WORKER", help="Only sessions on this worker.", autocompletion=completing.worker_ids),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=10_000, metavar="N", help="Show at most this many.")] = None,
    cursor: Annotated[str | None, typer.Option(metavar="CURSOR", help="Continue where a limited list ended.")] = None,
) -> None:
    """List the open sessions, with their age and the time until they expire unused."""
    async with invocation.client() as client:
        page = await client.list_sessions(
            service_name=service, call_id=call, worker_id=worker, limit=limit, cursor=cursor
        )
    if invocation.json:
        write_json(page)
        return
    if page.sessions:
        answers().print(sessions_table(page.sessions.values()))
    elif any((service, call, worker, limit, cursor)):
        say("No open session matches. Without options all are listed: mcp-sessions sessions list")
    else:
        say("No session is open. Open one: mcp-sessions sessions create CALL SERVICE")
    if not page.complete:
        say(f"Not complete: no answer from {', '.join(page.missing_workers)}.", style="yellow")
    if page.next_cursor:
        say(f"There are more: --cursor {page.next_cursor}")


@command(group, "get", epilog="Example: mcp-sessions sessions get c3f1b5d3-98db-45a6-a20b-2cf0dd311efa")
async def get_session(invocation: Invocation, session_id: SessionArgument) -> None:
    """Show everything about a session. This counts as a use of it."""
    async with invocation.client() as client:
        _tell(invocation, await client.get(session_id))


@command(group, "create", epilog="Example: mcp-sessions sessions create my-call todo --timeout 600")
async def create_session(
    invocation: Invocation,
    session_id: SessionArgument,
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE",
            help="The service; see 'services list'.",
            autocompletion=completing.service_names,
        ),
    ],
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="The idle timeout. Default: the configured one.")
    ] = None,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="A JSON object that the session keeps and its events show.")
    ] = None,
    if_exists: Annotated[
        Literal["replace", "keep", "reject"], typer.Option(help="What to do if a session with this id is open.")
    ] = "replace",
) -> None:
    """Open a session, like the start of a call."""
    about = None if metadata is None else json_object(metadata, "--metadata")
    async with invocation.client() as client:
        _tell(
            invocation,
            await client.create(session_id, service, timeout=timeout, metadata=about, if_exists=if_exists),
        )


@command(group, "close", epilog="Example: mcp-sessions sessions close my-call")
async def close_session(invocation: Invocation, session_id: SessionArgument) -> None:
    """Close a session. The id of a call closes all its sessions. Exit code 1 if none was open."""
    from schemas.errors import SessionNotFound

    async with invocation.client() as client:
        result = await client.close(session_id)
    if not result.closed:  # no error of the protocol, but who types an id means one that is there
        raise SessionNotFound(f"no session is open under the id {session_id!r}", session_id=session_id)
    if invocation.json:
        write_json(result)
    else:
        say(f"Closed: {', '.join(result.sessions)}")


def sessions_table(sessions: Collection["SessionInfo"], *, width: int | None = None) -> Table:
    """Return a table of sessions. It has a column for the state only if a state is unusual.

    It has no bars, because a UUID and the id of a worker must fit into 80 columns.
    """
    stateful = any(state_of(session) != "alive" for session in sessions)
    rows: list[Row] = [
        [
            session.session_id,
            session.service_name,
            session.worker_id,
            age(session.created_at),
            _left(session),
            *([state(state_of(session))] if stateful else []),
        ]
        for session in sessions
    ]
    columns = ("SESSION", "SERVICE", "WORKER", "AGE", "LEFT", *(["STATE"] if stateful else []))
    return table(*columns, rows=rows, right=["AGE", "LEFT"], whole=["SESSION"], width=width)


def state_of(session: "SessionInfo") -> str:
    """Return a session's state in one word."""
    if session.is_expired:
        return "expired"
    if not session.is_alive:
        return "dead"
    return "restored" if session.restored else "alive"


def time_left(session: "SessionInfo") -> Text:
    """Return a bar of the idle time that a session has left, as a part of its whole idle timeout."""
    return bar(max(0.0, session.time_remaining), session.timeout, _left(session))


def _left(session: "SessionInfo") -> str:
    left = max(0.0, session.time_remaining)
    return f"{left:.1f}s" if left < 10 else duration(left)


def _tell(invocation: Invocation, session: "SessionInfo") -> None:
    if invocation.json:
        write_json(session)
        return
    metadata = json.dumps(session.metadata, ensure_ascii=False, indent=2) if session.metadata else "none"
    answers().print(
        facts(
            ("session", session.session_id),
            ("call", session.call_id),
            ("service", session.service_name),
            ("worker", session.worker_id),
            ("state", state(state_of(session))),
            ("opened", f"{age(session.created_at)} ago"),
            ("last used", f"{age(session.last_accessed)} ago"),
            ("left", time_left(session) + f" of {duration(session.timeout)}"),
            ("metadata", metadata),
        )
    )
