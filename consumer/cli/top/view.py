"""The user's choices, and how each key changes them; pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from consumer.cli.top.known import SessionRow

PAGE = 10
"""How many rows a page key moves."""

SAID = 6.0
"""How long (s) a message stays on the screen."""

Mode = Literal["watching", "filtering", "asking", "help"]

SORTS = ("age", "left", "service", "worker", "call")
"""The columns by which sessions can be sorted."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Quit the view."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close a session."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause updates, or resume them."""


@dataclass(frozen=True, slots=True)
class Redraw:
    """Redraw everything, because another program has written on the screen."""


Action = Quit | Close | Pause | Redraw | None


@dataclass(frozen=True, slots=True)
class View:
    """The user's choices. ``selected`` is an id, so the selection stays on its session when the list moves."""

    mode: Mode = "watching"
    filter: str = ""
    sort: str = SORTS[0]
    reverse: bool = False
    selected: str | None = None
    at: int = 0
    """The row of the selected session, in case the session ends."""
    asked: tuple[str, int] = ("", 0)
    """The session to be closed, and how many sessions that would end, while the user is asked to confirm."""
    said: str = ""
    said_until: float = 0.0

    def say(self, sentence: str, ticks: float) -> "View":
        """Show a message for a while."""
        return replace(self, said=sentence, said_until=ticks + SAID)


def chosen(sessions: Iterable[SessionRow], view: View) -> list[SessionRow]:
    """Return the sessions that match the filter, in the order of the view."""
    wanted = view.filter.lower()
    fitting = [one for one in sessions if not wanted or _fits(one, wanted)]
    match view.sort:
        case "age":
            fitting.sort(key=lambda one: (one.created_at, one.session_id), reverse=not view.reverse)
        case "left":
            fitting.sort(key=lambda one: (one.runs_out, one.session_id), reverse=view.reverse)
        case "service":
            fitting.sort(key=lambda one: (one.service, one.session_id), reverse=view.reverse)
        case "worker":
            fitting.sort(key=lambda one: (one.worker, one.session_id), reverse=view.reverse)
        case _:
            fitting.sort(key=lambda one: one.session_id, reverse=view.reverse)
    return fitting


def _fits(session: SessionRow, wanted: str) -> bool:
    return any(wanted in text.lower() for text in (session.session_id, session.service, session.worker))


def position(view: View, rows: Sequence[SessionRow]) -> int | None:
    """Return the row of the selected session, or of the next one if it has ended. None: nothing is selected."""
    if view.selected is None or not rows:
        return None
    here = (number for number, one in enumerate(rows) if one.session_id == view.selected)
    return next(here, min(view.at, len(rows) - 1))


def pressed(view: View, key: str, sessions: Mapping[str, SessionRow]) -> tuple[View, Action]:
    """Handle a key. Return the new view and the action to carry out."""
    if key == "INTERRUPT":
        return view, Quit()
    if key == "REDRAW":
        return view, Redraw()
    match view.mode:
        case "filtering":
            return _typed(view, key), None
        case "asking":
            close = Close(view.asked[0]) if key in {"y", "Y"} else None
            return replace(view, mode="watching", asked=("", 0)), close
        case "help":
            return replace(view, mode="watching"), Quit() if key == "q" else None
        case "watching":
            return _watching(view, key, sessions)
        case _:
            assert_never(view.mode)


def _typed(view: View, key: str) -> View:
    match key:
        case "ENTER":
            return replace(view, mode="watching")
        case "ESCAPE":
            return replace(view, mode="watching", filter="")
        case "BACKSPACE":
            return replace(view, filter=view.filter[:-1])
        case "CLEAR":
            return replace(view, filter="")
        case _ if len(key) == 1:
            return replace(view, filter=view.filter + key)
        case _:
            return view


def _watching(view: View, key: str, sessions: Mapping[str, SessionRow]) -> tuple[View, Action]:
    match key:
        case "q":
            return view, Quit()
        case "/":
            return replace(view, mode="filtering"), None
        case "ESCAPE":
            return replace(view, filter="", selected=None), None
        case "s":
            return replace(view, sort=SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)], reverse=False), None
        case "r":
            return replace(view, reverse=not view.reverse), None
        case "p" | " ":
            return view, Pause()
        case "?" | "h":
            return replace(view, mode="help"), None
        case "x" | "ENTER":
            return _ask(view, sessions), None
        case _:
            return _moved(view, key, chosen(sessions.values(), view)), None


def _ask(view: View, sessions: Mapping[str, SessionRow]) -> View:
    rows = chosen(sessions.values(), view)
    at = position(view, rows)
    if at is None:
        return view
    one = rows[at]
    # The id of a call closes all of its sessions, and its first session goes by that id.
    count = sum(other.call_id == one.call_id for other in sessions.values()) if one.session_id == one.call_id else 1
    return replace(view, mode="asking", selected=one.session_id, at=at, asked=(one.session_id, count))


def _moved(view: View, key: str, rows: Sequence[SessionRow]) -> View:
    last = len(rows) - 1
    at = position(view, rows)
    moves = {
        "UP": last if at is None else at - 1,
        "DOWN": 0 if at is None else at + 1,
        "k": last if at is None else at - 1,
        "j": 0 if at is None else at + 1,
        "PAGE_UP": (at or 0) - PAGE,
        "PAGE_DOWN": (at or 0) + PAGE,
        "HOME": 0,
        "END": last,
    }
    if key not in moves or not rows:
        return view
    to = min(last, max(0, moves[key]))
    return replace(view, selected=rows[to].session_id, at=to)
