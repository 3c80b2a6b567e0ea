"""``mcp-sessions events``: prints events of sessions and workers as they happen."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.text import Text

from consumer.cli import completing
from consumer.cli.command import Invocation, command, quiet_logs
from consumer.cli.screen import answers, duration, say, shown, state, write_json

if TYPE_CHECKING:
    from schemas.events import CloudEvent

TYPE_WIDTH = len("rejected")


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "events", epilog="Example: mcp-sessions events 'session.closed.*' --count 1 --json")(follow_events)


async def follow_events(
    invocation: Invocation,
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="[PATTERN]",
            help="A topic pattern for session.WHAT.SERVICE or worker.WHAT. Or only WHAT, such as rejected or closed.",
            show_default=False,
            autocompletion=completing.event_patterns,
        ),
    ] = "#",
    count: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after this many events.")] = None,
) -> None:
    """Follow the events of sessions and workers until Ctrl-C.

    PATTERN is a topic pattern for session.WHAT.SERVICE or worker.WHAT, or only WHAT. A session is created, closed,
    expired, died, lost or rejected; its server tells of list_changed and resource_updated. A worker is started,
    draining or stopped.

    If the connection is lost, the command reconnects, and a line on stderr says that events were missed. With --json,
    each line on stdout is a CloudEvents 1.0 object.
    """
    chosen = topic(pattern)
    quiet_logs("broker.lost", "broker.reconnecting", "broker.reconnected")
    async with invocation.client() as client, client.following(chosen, on_connection=_Gaps().tell) as events:
        if not invocation.json:
            say("Following; Ctrl-C ends it.", style="dim")
        screen, left = answers(), count
        while left is None or left > 0:
            event = await events.get()
            if invocation.json:
                write_json(event.model_dump(mode="json", exclude_none=True), line=True)
            else:
                screen.print(event_line(event), soft_wrap=True)
            left = None if left is None else left - 1


class _Gaps:
    """Reports the times without a connection, in which events are missed."""

    def __init__(self) -> None:
        self._lost_at = 0.0

    def tell(self, connected: bool) -> None:
        """Print that the connection is lost, or is back."""
        if connected:
            away = duration(time.monotonic() - self._lost_at)
            say(f"Following again. Events of the last {away} were missed.", style="yellow")
        else:
            self._lost_at = time.monotonic()
            say("The connection to the broker is lost; reconnecting. Events are missed meanwhile.", style="yellow")


def topic(pattern: str) -> str:
    """Return a topic pattern. A single word is an event's type: ``closed`` becomes ``*.closed.#``.

    Raises:
        typer.BadParameter: no event can have a routing key that fits the pattern.
    """
    found = _topic(pattern)
    if not _fits_any(found):
        raise typer.BadParameter(f"no event fits {pattern!r}{_meant(pattern)}", param_hint="PATTERN")
    return found


def _topic(pattern: str) -> str:
    return pattern if "." in pattern or pattern in {"#", "*"} else f"*.{pattern}.#"


def _fits_any(topic_pattern: str) -> bool:
    return any(_fits(topic_pattern.split("."), key) for key in _keys())


def _keys() -> Iterator[tuple[str | None, ...]]:
    """Yield the words of the routing key of each type of event; None is the name of a service."""
    from schemas.events import SessionEventType, WorkerEventType  # noqa: PLC0415 - see consumer.cli.command

    yield from (("session", one.value, None) for one in SessionEventType)
    yield from (("worker", one) for one in get_args(WorkerEventType))


def _fits(pattern: Sequence[str], key: Sequence[str | None]) -> bool:
    """Return whether a routing key fits a topic pattern: ``*`` stands for one word, ``#`` for any number of words."""
    if not pattern or not key:
        return not key and all(word == "#" for word in pattern)
    first, *others = pattern
    if first == "#":
        return _fits(others, key) or _fits(pattern, key[1:])
    return (first == "*" or key[0] in (None, first)) and _fits(others, key[1:])


def _meant(pattern: str) -> str:
    """Return what may have been meant by a pattern that fits no event."""
    known = {word for key in _keys() for word in key if word is not None}
    near = {word: get_close_matches(word, known, n=1) for word in pattern.split(".") if word not in {*known, "*", "#"}}
    meant = ".".join(near[word][0] if near.get(word) else word for word in pattern.split("."))
    if _fits_any(_topic(meant)):
        return f"; did you mean {meant!r}?"
    return ": it is session.WHAT.SERVICE or worker.WHAT, or only WHAT"


def event_line(event: "CloudEvent") -> Text:
    """Return an event as a line for people."""
    return line_of(event.time, what_of(event), event.subject or "", about(event))


def line_of(when: datetime, what: str, who: str, more: str) -> Text:
    """Return a line about an event."""
    clock = when.astimezone().strftime("%H:%M:%S")
    line = Text.assemble((clock, "dim"), " ", state(what), " " * (TYPE_WIDTH - len(what)), " ", shown(who))
    return line.append(f"  {shown(more)}", style="dim") if more else line


def what_of(event: "CloudEvent") -> str:
    """Return the event's type in one word."""
    return event.type.rpartition(".")[2]


def about(event: "CloudEvent") -> str:
    """Return the details of an event besides its type and its subject, for people."""
    data: dict[str, Any] = event.data
    if event.type.startswith("mcp.worker."):
        return " ".join(f"{key}={data[key]}" for key in ("host", "pid", "version") if key in data)
    words = [str(data.get("service_name", ""))]
    if data.get("restored") and event.type.endswith(".created"):
        words.append("restored")
    if "reason" in data:
        words.append(str(data["reason"]))
    words += [str(data[key]) for key in ("uri", "list") if key in data]
    words += [f"{key.replace('_', ' ')} {data[key]}" for key in ("exit_code", "signal") if data.get(key) is not None]
    if data.get("created_at") and not event.type.endswith(".created"):
        words.append(f"age {duration((event.time - datetime.fromisoformat(data['created_at'])).total_seconds())}")
    words.append(f"on {data.get('worker_id', '')}")
    told = " ".join(words)
    return f"{told}: {data['message']}" if data.get("message") else told
