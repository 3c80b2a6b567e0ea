"""``mcp-sessions calls``: sends telephony events from files."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli import completing, tokens
from consumer.cli.command import Invocation, command
from consumer.cli.exit_codes import ExitCode
from consumer.cli.screen import Row, answers, say, state, table, write_json

if TYPE_CHECKING:
    from schemas.calls import Platform

group = typer.Typer(help="Send events of telephony platforms by hand.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    tokens.register(group)
    app.add_typer(group, name="calls")


FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

UNRECOGNISED = "unrecognised"
"""The outcome for a body that no translator recognises."""

NEAREST = 3
"""How many refusals are shown for a body that no translator recognises."""


@dataclass(frozen=True, slots=True)
class Looked:
    """One translator's verdict on a file; ``refused`` is the reason why it is not one of its events."""

    source: str
    refused: str | None


@dataclass(frozen=True, slots=True)
class Sendable:
    """One file: where it goes, and the outcome that a worker would give it."""

    file: str
    exchange: str
    routing_key: str
    content_type: str
    size: int
    source: str
    kind: str
    call_id: str
    note: str
    looks: list[Looked]

    @property
    def is_unrecognised(self) -> bool:
        """Whether it would become a dead letter."""
        return self.kind == UNRECOGNISED


@command(
    group, "send", epilog="Example: mcp-sessions calls send tests/samples/call-events/relay/receive_created_phone.json"
)
async def send(
    invocation: Invocation,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="An event as a platform sends it; - is stdin.", autocompletion=completing.files
        ),
    ],
    exchange: Annotated[str | None, typer.Option(metavar="NAME", help="The exchange. Default: PREFIX.calls.")] = None,
    routing_key: Annotated[
        str, typer.Option(metavar="KEY", help="The routing key, for an exchange that uses it.")
    ] = "",
    content_type: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="The content type. Default: JSON or a form, depending on the content."),
    ] = None,
    why: Annotated[
        bool,
        typer.Option(
            "--why",
            help="Show why each other translator refused the event. If all refused, the nearest are always shown.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Send also events that no worker understands. They become dead letters.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how a worker translates each event, and send nothing.")
    ] = False,
) -> None:
    """Publish call events from files, and show how a worker translates each.

    All files are translated before the first is sent. If one of them is no event that a worker knows,
    nothing is sent, the reason is printed, and the exit code is 1. The files are sent in order, and the broker
    confirms each before the next. If worker.call_exchanges names the platform of the exchange, the events are
    translated as that platform's. --dry-run needs no broker.
    """
    from consumer.broker.topology import Names

    bodies = [(file, _read(file)) for file in files]  # a name that is wrong is told before anything is sent
    worker = invocation.settings().worker
    platform = next((one.platform for one in worker.call_exchanges if one.exchange == exchange), None)
    where = exchange or Names(worker.prefix).calls
    sendable = [
        _sendable(file, body, where, routing_key, content_type or guessed_type(body), platform) for file, body in bodies
    ]
    refused = [] if force else [one for one in sendable if one.is_unrecognised]
    if refused:
        _tell_refused(refused, len(sendable), why=why, as_json=invocation.json)
        raise typer.Exit(ExitCode.ERROR)
    if not dry_run:
        await _publish(invocation, list(zip(sendable, (body for _, body in bodies), strict=True)), exchange)
    if invocation.json:
        write_json({"would_send" if dry_run else "sent": [asdict(one) for one in sendable]})
        return
    rows: list[Row] = [[Path(one.file).name, one.source, state(one.kind), one.call_id] for one in sendable]
    answers().print(table("WOULD SEND" if dry_run else "SENT", "SOURCE", "SAYS", "CALL", rows=rows, whole=["CALL"]))
    for one in sendable:
        if one.note:
            say(f"{Path(one.file).name}: {one.note}", style="dim")
        if why or one.is_unrecognised:
            _tell_looks(one.looks, all_of_them=why)


async def _publish(invocation: Invocation, events: list[tuple[Sendable, bytes]], exchange: str | None) -> None:
    """Publish one event after the other. If that ends early, print how many were sent."""
    sent: list[Sendable] = []
    try:
        async with invocation.client() as client:
            for one, body in events:
                await client.publish_call_event(
                    body, content_type=one.content_type, exchange=exchange, routing_key=one.routing_key
                )
                sent.append(one)
    finally:
        if 0 < len(sent) < len(events):
            say(f"{len(sent)} of {len(events)} were sent, the last of them {sent[-1].file}.", style="yellow")


def _tell_refused(refused: list[Sendable], count: int, *, why: bool, as_json: bool) -> None:
    """Print why nothing is sent."""
    from consumer.cli.failures import Failure, tell

    what = "this is" if count == 1 else f"{len(refused)} of {count} are"
    failure = Failure(
        ExitCode.ERROR,
        UNRECOGNISED.upper(),
        f"nothing was sent, because {what} no event that a worker knows",
        details={"files": [asdict(one) for one in refused]} if as_json else {},
    )
    tell(failure, as_json=as_json)
    if as_json:
        return
    for one in refused:
        say(f"{Path(one.file).name}: {one.note}")
        _tell_looks(one.looks, all_of_them=why)
    say("It would become a dead letter. --force sends it all the same.", style="dim")


def _tell_looks(looks: list[Looked], *, all_of_them: bool) -> None:
    """Print why translators refuse a body: all of them, or the nearest ones. None if one recognises it."""
    if not all_of_them and any(not look.refused for look in looks):
        return
    shown = looks if all_of_them else looks[:NEAREST]
    for look in shown:
        say(f"  {look.source}: {f'not its own: {look.refused}' if look.refused else 'takes it'}", style="dim")
    if len(shown) < len(looks):
        say(f"  {len(looks) - len(shown)} more translators fit even less: --why shows them", style="dim")


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}") from None


def guessed_type(body: bytes) -> str:
    """Guess the content type of a body."""
    start = body.lstrip()[:1]
    return JSON if start in {b"{", b"[", b'"', b"\xef"} or b"=" not in body else FORM


def _sendable(
    file: str, body: bytes, exchange: str, routing_key: str, content_type: str, platform: "Platform | None"
) -> Sendable:
    from consumer.telephony import Ignored, Translated, Unrecognised, looks, translate

    looked = [Looked(look.source, look.refused) for look in looks(body, content_type=content_type, platform=platform)]
    match translate(body, content_type=content_type, routing_key=routing_key or None, platform=platform):
        case Translated(event=event):
            source, kind, call_id, note = event.source, event.kind.value, str(event.call_id), ""
        case Ignored() as ignored:
            source, kind, call_id = ignored.source, "ignored", ""
            note = f"{ignored.what} does not concern the life of a call."
        case Unrecognised(problem=problem):
            source, kind, call_id, note = "", UNRECOGNISED, "", problem
    return Sendable(file, exchange, routing_key, content_type, len(body), source, kind, call_id, note, looked)
