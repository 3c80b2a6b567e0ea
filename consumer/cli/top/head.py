"""The lines above and below the tables: three with the state, one with the keys, and the help; pure."""

from rich.text import Text

from consumer.cli.screen import age_of, duration, shown
from consumer.cli.top.columns import line, shortened
from consumer.cli.top.known import Known, Minute, Now, minute
from consumer.cli.top.view import SORTS, View

Piece = str | tuple[str, str]
"""A part of a line, with a style or without."""

STALE = 5.0
"""Seconds without an answer after which the screen shows how old its data is."""

_HELP = """
  ↑ ↓ k j            select a session; Page Up, Page Down, Home, End
  x or Enter         close the selected session; asks first
  /                  filter by call, session, service or worker; Enter keeps it
  Esc                clear filter and selection
  s, r               sort by {sorts}; reverse the order
  p or space         pause and continue
  q or Ctrl-C        leave

  SESSIONS of a worker: how many are open, of how many it may have. WARM:
  servers that wait for a call. LEFT: how long a session may stay unused
  from now on. Rates and durations are those of the last minute. Dead letters:
  messages that no worker could handle; 'mcp-sessions dead-letters list' shows
  them.

  Any key goes back.
"""


def head(known: Known, width: int, now: Now, *, paused: bool) -> list[Text]:
    """Return the head: the broker, the connection, and the figures of the last minute."""
    figures = known.listing.figures
    happened = minute(figures or ())
    first = Text.assemble(("mcp-sessions top", "bold"), "  ", known.where, "  ", _link(known, now))
    if paused:
        first.append("  paused", style="bold yellow")
    clock = now.date.astimezone().strftime("%H:%M:%S")
    space = width - len(clock) - first.cell_len
    if space > 1:
        first.append(" " * space).append(clock, style="dim")
    full = known.open / known.capacity if known.capacity else 0.0
    sessions = Text.assemble(
        *_figure("sessions", f"{known.open}/{known.capacity}", "red" if full > 0.9 else "bold"),
        *_figure("starts", _rate(happened.starts, figures)),
        *_figure("ends", _rate(happened.ends, figures)),
        *_dead_letters(known.listing.dead_letters, happened),
    )
    calls = Text.assemble(
        *_figure("tool calls", _rate(happened.calls, figures)),
        *_figure("failed", _rate(happened.errors, figures), "red" if happened.errors else "bold"),
        *_figure("p50", took(happened.p50)),
        *_figure("p95", took(happened.p95)),
        ("in the last minute", "dim"),
    )
    return [line(first, width), line(sessions, width), line(calls, width)]


def _link(known: Known, now: Now) -> Text:
    if not known.connected:
        told = Text("reconnecting", style="bold red")
    elif known.problem:
        told = Text(shown(known.problem), style="yellow")
    else:
        told = Text("connected", style="green")
    silent = now.ticks - known.heard_at
    if STALE < silent < float("inf"):
        told.append(f", as of {age_of(silent)} ago", style="yellow")
    return told


def _figure(name: str, value: str, style: str = "bold") -> tuple[Piece, ...]:
    return (name, "dim"), " ", (value, style), "   "


def _rate(value: float, figures: object) -> str:
    return "-" if figures is None else f"{per_second(value)}/s"


def per_second(value: float) -> str:
    """Return a rate with enough digits to differ from zero: one call in a minute is 0.02."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if 0 < value < 0.095 else f"{value:.1f}"


def took(seconds: float | None) -> str:
    """Return a duration, or a mark if it is unknown."""
    return "-" if seconds is None else duration(seconds)


def _dead_letters(count: int | None, happened: Minute) -> list[Piece]:
    told: list[Piece] = list(
        _figure("dead letters", "-" if count is None else str(count), "bold red" if count else "bold")
    )
    if happened.dead_letters:
        reasons = ", ".join(f"+{number} {reason}" for reason, number in sorted(happened.dead_letters.items()))
        told.append((reasons, "red"))
    return told


def foot(view: View, ticks: float, *, paused: bool) -> Text:
    """Return the foot: the keys, the current input or question, or the last action."""
    match view.mode:
        case "filtering":
            return Text.assemble(
                ("filter ", "bold"), shown(view.filter), ("▏", "bold"), ("  Enter keeps, Esc clears", "dim")
            )
        case "asking":
            name, count = view.asked
            what = f"all {count} sessions of call " if count > 1 else "session "
            short = shortened(Text(shown(name)), 40, middle=True)
            return Text.assemble(
                (f"Close {what}", "bold red"), short, ("? y closes, any other key does not", "bold red")
            )
        case _ if view.said and ticks < view.said_until:
            return Text(shown(view.said), style="bold")
        case _:
            keys = (
                ("q", "quit"),
                ("/", "filter"),
                ("s", "sort"),
                ("↑↓", "select"),
                ("x", "close"),
                ("p", "go on" if paused else "pause"),
                ("?", "help"),
            )
            return Text("  ").join(Text.assemble((key, "bold cyan"), " ", (what, "dim")) for key, what in keys)


def help_lines(width: int) -> list[Text]:
    """Return the help: the keys, and what the words mean."""
    return [line(Text(row), width) for row in _HELP.format(sorts=", ".join(SORTS)).strip("\n").split("\n")]
