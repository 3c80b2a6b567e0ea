"""Draws the screen: lines that fit, from the known state and the user's choices; pure.

Only what fits is drawn, however many sessions there are.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from consumer.cli.events import event_line, line_of
from consumer.cli.screen import age_of, bar, duration, shown, state
from consumer.cli.top.columns import Column, folded, line, lines
from consumer.cli.top.head import foot, head, help_lines, per_second, took
from consumer.cli.top.known import NOTHING, Interruption, Known, Now, SessionRow, minute
from consumer.cli.top.view import View, chosen, position

if TYPE_CHECKING:
    from schemas.events import CloudEvent

FEWEST = 3
"""The fewest lines for workers, and for events, on a screen."""

INDENT = len("14:03:07 ")
"""Blanks before what an event says on its further lines."""

_DECLARE = "Nothing is declared: start a worker, or run 'mcp-sessions topology apply'"

_WORKERS = (
    Column("WORKER", least=18, middle=True),
    Column("STATE"),
    Column("SESSIONS"),
    Column("WARM", rank=1, right=True),
    Column("CALLS/S", rank=2, right=True),
    Column("P95", rank=2, right=True),
    Column("UP", right=True),
    Column("HOST", least=8, rank=3, middle=True),
    Column("VERSION", rank=4),
)
_SESSIONS = (
    Column("CALL", least=16, kept=36, middle=True),
    Column("SERVICE", least=8),
    Column("WORKER", least=10, rank=1, middle=True),
    Column("AGE", right=True),
    Column("LEFT"),
)


def picture(known: Known, view: View, width: int, height: int | None, now: Now, *, paused: bool = False) -> list[Text]:
    """Return the lines of a screen. Without a ``height`` it is as long as necessary."""
    above = [*head(known, width, now, paused=paused), line(Text(), width)]
    if view.mode == "help":
        return _filled([*above, *help_lines(width)], [], width, height)
    rows = chosen(known.sessions.values(), view)
    if height is None:
        workers, events = _workers(known, width, now), _events(known, width, None)
        return [*above, *workers, line(Text(), width), *_sessions(known, view, rows, width, None, now), *events]
    below = [line(foot(view, now.ticks, paused=paused), width)]
    rest = max(0, height - len(above) - len(below))
    workers = _workers(known, width, now, most=max(FEWEST, rest // 4))
    events = _events(known, width, max(FEWEST, rest // 4))
    room = rest - len(workers) - 1 - len(events)
    if room < 3:  # a screen of a few lines: the sessions are what somebody looks for
        events, room = [], rest - len(workers) - 1
    body = [*workers, line(Text(), width), *_sessions(known, view, rows, width, room, now)]
    return _filled([*above, *body], [*events, *below], width, height)


def _filled(upper: list[Text], lower: list[Text], width: int, height: int | None) -> list[Text]:
    if height is None:
        return upper
    upper = upper[: max(0, height - len(lower))]
    return [*upper, *[line(Text(), width)] * (height - len(upper) - len(lower)), *lower][:height]


def _workers(known: Known, width: int, now: Now, most: int | None = None) -> list[Text]:
    figures = {one["worker_id"]: minute([one]) for one in known.listing.figures or ()}
    workers = known.listing.workers
    drawn = workers if most is None or len(workers) <= most else workers[: most - 1]
    rows = []
    for worker in drawn:
        own = figures.get(worker["worker_id"])
        count, capacity = worker["sessions"], worker["capacity"]
        rows.append(
            [
                Text(shown(worker["worker_id"])),
                state(worker["state"]) + (Text(" placer", "cyan") if worker["worker_id"] == known.placer else Text()),
                bar(count, capacity, f"{count}/{capacity}", full_is_bad=True),
                Text(str(sum(load["warm"] for load in worker["services"].values()))),
                Text(per_second(own.calls) if own else "-"),
                Text(took(own.p95 if own else None)),
                Text(_age(worker["started_at"], now)),
                Text(shown(worker["host"])),
                Text(shown(worker["version"])),
            ]
        )
    made = lines(_WORKERS, rows, width)
    if not workers:
        advice = _DECLARE if known.problem == NOTHING else "No worker is present. Start one: mcp-sessions worker"
        made.append(line(Text(advice, style="yellow"), width))
    if len(drawn) < len(workers):
        made.append(line(Text(f"… and {len(workers) - len(drawn)} more", style="dim"), width))
    return made


def _age(moment: str, now: Now) -> str:
    return age_of((now.date - type(now.date).fromisoformat(moment)).total_seconds())


def _sessions(
    known: Known, view: View, rows: Sequence[SessionRow], width: int, room: int | None, now: Now
) -> list[Text]:
    at = position(view, rows)
    space = len(rows) if room is None else max(0, room - 2)
    first = 0 if at is None else max(0, min(at - space // 2, len(rows) - space))
    drawn = rows[first : first + space]
    cells = [
        [
            Text(shown(_call_of(one))),
            Text(shown(one.service)) + (Text(" restored", "cyan") if one.restored else Text()),
            Text(shown(one.worker)),
            Text(age_of((now.date - one.created_at).total_seconds())),
            _left(one, now.ticks),
        ]
        for one in drawn
    ]
    made = lines(_SESSIONS, cells, width)
    if at is not None and first <= at < first + len(drawn):
        made[1 + at - first] = Text(made[1 + at - first].plain, style="reverse", no_wrap=True)
    return [*made, line(_note(known, view, rows, first, len(drawn)), width)]


def _call_of(session: SessionRow) -> str:
    """Return the id of a session's call, or the session's whole id if call and service do not determine it."""
    usual = (session.call_id, f"{session.call_id}#{session.service}")
    return session.call_id if session.session_id in usual else session.session_id


def _left(session: SessionRow, ticks: float) -> Text:
    left = session.left(ticks)
    return bar(left, session.timeout, f"{left:.1f}s" if left < 10 else duration(left))


def _note(known: Known, view: View, rows: Sequence[SessionRow], first: int, drawn: int) -> Text:
    """Return what the list itself does not show: how many there are, and how they are sorted."""
    if not rows:
        told = Text("Nothing matches the filter." if known.sessions else "No session is open.", style="dim")
        return _with_missing(told, known)
    parts = [f"{first + 1}-{first + drawn} of {len(rows)}" if drawn < len(rows) else f"{len(rows)}"]
    if view.filter:
        parts.append(f"that fit “{shown(view.filter)}”")
    if known.listing.more:
        parts.append(f"of the first {len(known.sessions)} (there are {known.open})")
    parts.append(f"by {view.sort}{', reversed' if view.reverse else ''}")
    return _with_missing(Text(" ".join(parts), style="dim"), known)


def _with_missing(told: Text, known: Known) -> Text:
    if known.listing.missing:
        told.append(f"   no answer from {', '.join(known.listing.missing)}", style="yellow")
    return told


def _events(known: Known, width: int, most: int | None) -> list[Text]:
    if most is None:
        return []
    last = [part for one in list(known.events)[-most:] for part in folded(_event(one), width, INDENT)][-most:]
    told = [line(Text(), width), line(Text("EVENTS", style="bold"), width), *last]
    return [*told, *[line(Text(), width)] * (most - len(last))]


def _event(one: "CloudEvent | Interruption") -> Text:
    if isinstance(one, Interruption):
        missed = f"events of {duration(one.seconds)}: the connection was lost"
        return line_of(one.time, "missed", "", missed)
    return event_line(one)
