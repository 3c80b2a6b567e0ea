"""The command ``top``: the live view on a terminal, one frame elsewhere, or the figures as JSON."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli.command import Invocation, command
from consumer.cli.screen import UNBOUNDED, answers, write_json

if TYPE_CHECKING:
    from pydantic import SecretStr

    from consumer.cli.top.known import Known

WIDEST = 160
"""The columns of a frame that goes into a pipe."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "top", epilog="Example: mcp-sessions top --once")(top)


async def top(
    invocation: Invocation,
    once: Annotated[
        bool, typer.Option("--once", help="Print one frame and exit. This also works without a terminal.")
    ] = False,
    interval: Annotated[
        float,
        typer.Option(
            min=0.2, max=3600, metavar="SECONDS", help="The shortest time between two requests to the workers."
        ),
    ] = 1.0,
) -> None:
    """Watch workers, sessions, rates and events live. Filter and close sessions with keys.

    '?' shows the keys, 'q' leaves. With --json, one snapshot: rates and durations are those of the last minute.
    """
    from consumer.cli.top.known import Known
    from consumer.cli.top.live import Screen
    from consumer.cli.top.watching import Watcher

    settings = invocation.settings()
    known = Known(f"{settings.worker.prefix} on {_host(settings.amqp_url)}")
    changed = asyncio.Event()
    screen = answers()
    live = sys.stdin.isatty() and screen.is_terminal and not screen.is_dumb_terminal
    async with invocation.client() as client:
        watcher = Watcher(client, known, changed.set)
        if invocation.json or once or not live:
            known.listed(await watcher.fetch(), asyncio.get_running_loop().time())
            if invocation.json:
                write_json(snapshot(known))
            else:
                _one_frame(known)
            return
        _silent_logs()
        code = await Screen(watcher, screen, sys.stdin.fileno(), interval, changed).run()
    if code:
        raise typer.Exit(code)


def _one_frame(known: "Known") -> None:
    from consumer.cli.top.live import now
    from consumer.cli.top.picture import picture
    from consumer.cli.top.view import View

    screen = answers()
    width = WIDEST if screen.width == UNBOUNDED else screen.width
    height = screen.height - 1 if screen.is_terminal else None
    for line in picture(known, View(), width, height, now()):
        line.rstrip()
        screen.print(line, soft_wrap=True)


def snapshot(known: "Known") -> dict[str, Any]:
    """Return the data of one frame for programs."""
    from consumer.cli.top.known import minute

    listing = known.listing
    figures = {one["worker_id"]: one for one in listing.figures or ()}
    return {
        "workers": [{**worker, "figures": figures.get(worker["worker_id"])} for worker in listing.workers],
        "sessions": dict(listing.sessions),
        "complete": not listing.missing and not listing.more,
        "missing_workers": list(listing.missing),
        "open": known.open,
        "capacity": known.capacity,
        "placer": known.placer,
        "dead_letters": listing.dead_letters,
        "last_minute": None if listing.figures is None else asdict(minute(listing.figures)),
    }


def _host(url: "SecretStr") -> str:
    """Return the broker's address without the password."""
    from yarl import URL

    parsed = URL(url.get_secret_value())
    vhost = parsed.path if parsed.path not in {"", "/", "//"} else ""
    return f"{parsed.host}:{parsed.port or (5671 if parsed.scheme == 'amqps' else 5672)}{vhost}"


def _silent_logs() -> None:
    """Turn logging off, because lines would disturb the picture, which shows the state of the connection itself."""
    from consumer.observability import configure_logging

    configure_logging("critical", "console")
