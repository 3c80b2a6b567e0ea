"""``mcp-sessions dead-letters``: the dead-letter queue, where messages wait that no worker could handle.

Listing removes nothing. A replay or drop needs an explicit selection: ids, a filter, or ``--all``.
"""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

import sys
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli.command import Invocation, command, run
from consumer.cli.dead_letter_screen import (
    counted,
    dead_letter_table,
    fields,
    show_whole,
    tell_replayed,
    tell_summary,
    whole,
)
from consumer.cli.exit_codes import ExitCode
from consumer.cli.screen import answers, problems, say, write_json
from consumer.cli.typed_values import moment

if TYPE_CHECKING:
    from consumer.broker.dead_letter import DeadLetter, Filter
    from consumer.broker.dead_letter_queue import DeadLetterQueue, Replayed
    from consumer.broker.link import Link

group = typer.Typer(help="List, replay and drop messages that no worker could handle.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="dead-letters")


Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...", help="An id from the list, the beginning of one, or a message id.", show_default=False
    ),
]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]


@dataclass(frozen=True, slots=True)
class Fitting:
    """The options that select dead letters."""

    reason: Annotated[str | None, typer.Option(metavar="WORD", help="Only those with this reason.")] = None
    type_: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only messages of this type.")] = None
    call: Annotated[str | None, typer.Option(metavar="CALL", help="Only messages for this call.")] = None
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only those since this time. An age (2h) or a time.")
    ] = None
    before: Annotated[str | None, typer.Option(metavar="TIME", help="Only those before this time.")] = None

    def filter(self) -> "Filter":
        """Return the filter that these options describe.

        Raises:
            typer.BadParameter: a time cannot be read, or no message can have this reason.
        """
        from consumer.broker.dead_letter import REASONS, Filter
        from schemas.text import did_you_mean

        if self.reason is not None and self.reason not in REASONS:
            meant = did_you_mean(self.reason, sorted(REASONS))
            raise typer.BadParameter(
                f"--reason: no dead letter has the reason {self.reason!r}; {meant}known: {', '.join(sorted(REASONS))}"
            )

        return Filter(
            reason=self.reason,
            type=self.type_,
            call=self.call,
            since=None if self.since is None else moment(self.since, "--since"),
            before=None if self.before is None else moment(self.before, "--before"),
        )


@command(group, "list", epilog="Example: mcp-sessions dead-letters list --reason unrecognised --since 1h")
async def list_dead_letters(
    invocation: Invocation,
    fitting: Fitting,
    limit: Annotated[int, typer.Option(min=1, max=65_535, metavar="N", help="Show at most this many.")] = 100,
) -> None:
    """List the dead letters, oldest first. This removes none and keeps their order."""
    wanted = fitting.filter()
    listed: list[DeadLetter] = []
    reasons: Counter[str] = Counter()

    def visit(letter: "DeadLetter") -> bool:
        if wanted.fits(letter):
            reasons[letter.reason] += 1
            if len(listed) < limit:
                listed.append(letter.without_body())
        return True

    async with _lot(invocation) as (lot, _):
        look = await lot.look(visit)
    if invocation.json:
        write_json(
            {
                "dead_letters": [fields(one) for one in listed],
                "total": reasons.total(),
                "reasons": dict(reasons),
                "complete": not look.left,
            }
        )
        return
    if listed:
        answers().print(dead_letter_table(listed))
    tell_summary(look, reasons, len(listed))


@command(group, "show", epilog="Example: mcp-sessions dead-letters show 3f9c")
async def show(
    invocation: Invocation,
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="An id from the list, the beginning of one, or a message id.")
    ],
) -> None:
    """Show a dead letter: its origin, properties, headers and body."""
    async with _lot(invocation) as (lot, _):
        wanted = (await lot.named([id_]))[0].id
        found: list[DeadLetter] = []

        def visit(letter: "DeadLetter") -> bool:
            if letter.id == wanted:
                found.append(letter)
            return not found

        await lot.look(visit)
    if not found:
        from consumer.broker.dead_letter_queue import NoSuchDeadLetter

        raise NoSuchDeadLetter(f"another program has just removed {wanted}")
    if invocation.json:
        write_json(fields(found[0]) | whole(found[0]))
    else:
        show_whole(found[0])


@command(group, "replay", epilog="Example: mcp-sessions dead-letters replay --reason crash_loop")
async def replay(
    invocation: Invocation,
    fitting: Fitting,
    ids: Ids = None,
    all_: All = False,
    watch: Annotated[
        float,
        typer.Option(
            min=0, max=600, metavar="SECONDS", help="How long to watch whether they become dead letters again."
        ),
    ] = 2.0,
) -> None:
    """Publish dead letters again, to their original exchange and routing key, and show which failed again.

    A message that only a worker could have published stays a dead letter, and the output says so. If you interrupt the
    command, a message may be published and still be a dead letter. None is lost.
    """
    from consumer.broker.publisher import Publisher

    meant = _meant(ids, fitting.filter(), everything=all_)
    done: list[Replayed] = []
    try:
        async with _lot(invocation) as (lot, link):
            found = await _find(lot, meant)
            if found:
                before = await lot.everything()
                publisher = Publisher()
                publisher.attach(await link.publishing())
                await lot.replay({one.id for one in found}, publisher, done.append)
                done = await lot.dead_letter_again(done, before, watch)
    except BaseException:
        if done:  # what was done before the interruption; else there is nothing to tell but the error
            tell_replayed(done, watched=watch, as_json=invocation.json)
        raise
    tell_replayed(done, watched=watch, as_json=invocation.json)
    if any(one.problem or one.again for one in done):
        raise typer.Exit(ExitCode.ERROR)


@command(group, "drop", epilog="Example: mcp-sessions dead-letters drop 3f9c0a1b2c4d")
def drop(
    invocation: Invocation,
    fitting: Fitting,
    ids: Ids = None,
    all_: All = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> Coroutine[Any, Any, None]:
    """Delete dead letters and print which. On a terminal it asks first."""
    meant = _meant(ids, fitting.filter(), everything=all_)

    async def find() -> "list[DeadLetter]":
        async with _lot(invocation) as (lot, _):
            return await _find(lot, meant)

    found = run(find())
    if found and not yes and sys.stdin.isatty():
        problems().print(dead_letter_table(found))
        if not typer.confirm(f"Drop {counted(len(found))} for good?", err=True):
            say("Nothing was dropped.")
            raise typer.Exit(ExitCode.ERROR)
    return _drop(invocation, {one.id for one in found})


async def _drop(invocation: Invocation, ids: set[str]) -> None:
    dropped: list[DeadLetter] = []
    try:
        if ids:
            async with _lot(invocation) as (lot, _):
                await lot.drop(ids, dropped.append)
    except BaseException:
        if dropped:
            _tell_dropped(dropped, as_json=invocation.json)
        raise
    _tell_dropped(dropped, as_json=invocation.json)


def _tell_dropped(dropped: "list[DeadLetter]", *, as_json: bool) -> None:
    if as_json:
        write_json({"dropped": [fields(one) for one in dropped]})
        return
    if dropped:
        answers().print(dead_letter_table(dropped))
    say(f"Dropped {counted(len(dropped))}." if dropped else "No dead letter matches.")


def _meant(ids: list[str] | None, wanted: "Filter", *, everything: bool) -> "list[str] | Filter":
    """Return the selected messages.

    Raises:
        typer.BadParameter: no selection was given, or more than one.
    """
    from consumer.broker.dead_letter import Filter

    filtered = wanted != Filter()
    match [bool(ids), filtered, everything].count(True):
        case 0:
            raise typer.BadParameter("name what you mean: ids, a filter such as --reason, or --all")
        case 1:
            return ids or wanted
        case _:
            raise typer.BadParameter("ids, filters and --all exclude each other")


async def _find(lot: "DeadLetterQueue", meant: "list[str] | Filter") -> "list[DeadLetter]":
    return await (lot.named(meant) if isinstance(meant, list) else lot.fitting(meant))


@asynccontextmanager
async def _lot(invocation: Invocation) -> AsyncIterator["tuple[DeadLetterQueue, Link]"]:
    from consumer.broker.dead_letter_queue import DeadLetterQueue
    from consumer.broker.topology import Names

    async with invocation.link("dead-letters") as link:
        yield DeadLetterQueue(link, Names(invocation.settings().worker.prefix)), link
