"""Output for people: tables that fit 80 columns, times as ages, and no cut in text that a user may want to copy.

Answers go to stdout, everything else to stderr. Text from telephony or an MCP server may contain anything. It is never
interpreted as markup, and its control characters are made visible.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, Literal, Self, TextIO, TypeAlias, cast

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

UNBOUNDED = 1000
"""The columns of output that does not go to a terminal. Nothing is folded, and each row is one line."""

_FILLING = re.compile(r" +(?=\n)| +$")

BAR = 5
"""The width of a bar in characters."""

Row: TypeAlias = Sequence[str | Text]
"""The cells of a row. A ``Text`` is never folded."""

GAP = 2
"""The gap between columns."""

NARROW = 10
"""The narrowest width that a column is folded to."""

STYLES = {
    "ready": "green",
    "open": "green",
    "alive": "green",
    "ok": "green",
    "enabled": "green",
    "works": "green",
    "created": "green",
    "started": "green",
    "restored": "cyan",
    "closed": "blue",
    "starting": "yellow",
    "draining": "yellow",
    "expired": "yellow",
    "missing": "yellow",
    "differs": "red",
    "refused": "red",
    "fails": "red",
    "failing": "red",
    "died": "red",
    "lost": "red",
    "rejected": "red",
    "dead": "red",
    "disabled": "dim",
    "stopped": "dim",
    "waiting": "dim",
    "todos": "magenta",
}


def _is_screen(stream: TextIO) -> bool:
    return stream.isatty() or bool(os.environ.get("COLUMNS"))


class _Uncropped(Console):
    """A console that leaves a line that is too long to the terminal, which folds it so that it is copied whole."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, and crop nothing."""
        super().print(*objects, **{"crop": False, **options})


class _Stripped:
    """A stream that strips the trailing blanks of table lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write whole lines, as a console does."""
        return self._stream.write(_FILLING.sub("", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    if _is_screen(stream):
        return _Uncropped(file=stream, markup=False, highlight=False, emoji=False)
    plain = cast("IO[str]", _Stripped(stream))
    return Console(file=plain, width=UNBOUNDED, markup=False, highlight=False, emoji=False)


def answers() -> Console:
    """Return the console for answers: stdout."""
    return _console()


def problems() -> Console:
    """Return the console for everything else: stderr."""
    return _console(stderr=True)


def write_json(value: Any, *, line: bool = False) -> None:
    """Print JSON for programs: on one ``line``, or indented. ASCII, so that no locale can spoil it."""
    sys.stdout.write(json.dumps(value, indent=None if line else 2, default=_plain) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    """Return a model as it was on the wire, and any other unknown type as text."""
    dump = getattr(value, "model_dump", None)
    return str(value) if dump is None else dump(mode="json", by_alias=True, exclude_unset=True)


def write_text(text: str) -> None:
    """Print text: unchanged into a pipe, with visible control characters on a terminal."""
    sys.stdout.write(f"{shown(text, lines=True) if sys.stdout.isatty() else text}\n")
    sys.stdout.flush()


def shown(text: object, *, lines: bool = False) -> str:
    """Return a text with visible control characters. ``lines`` keeps line ends and tabs."""
    kept = "\n\t" if lines else ""
    return "".join(one if one.isprintable() or one in kept else repr(one)[1:-1] for one in str(text))


def say(sentence: str, *, style: str = "") -> None:
    """Print a note on stderr."""
    problems().print(Text(shown(sentence, lines=True), style=style), soft_wrap=True)


def warn(sentence: str) -> None:
    """Print a warning on stderr."""
    say(f"warning: {sentence}", style="yellow")


def tell_missing(workers: Sequence[str]) -> None:
    """Print a note about the workers that did not answer, if there are any."""
    if workers:
        say(f"No answer from {', '.join(workers)}: it hangs or was killed.", style="yellow")


def state(word: str) -> Text:
    """Return a state in its colour."""
    return Text(word, style=STYLES.get(word, ""))


def table(
    *columns: str,
    rows: Iterable[Row],
    right: Iterable[str] = (),
    whole: Iterable[str] = (),
    width: int | None = None,
) -> Table:
    """Return a table of rows, ``width`` wide (default: the screen). Long cells are folded, never cut off.

    The columns named in ``whole`` are never folded, because users copy their text. Where they leave too little room for
    the other columns, the table is wider.
    """
    given = [list(row) for row in rows]
    widths = fit(
        [
            Width.of(column, [row[number] for row in given], whole=column in whole)
            for number, column in enumerate(columns)
        ],
        (answers().width if width is None else width) - GAP * (len(columns) - 1),
    )
    if width is not None or _is_screen(sys.stdout):
        made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    else:
        made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    made.width = sum(widths) + GAP * (len(columns) - 1)
    for column, wide in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column in right else "left"
        made.add_column(column, overflow="fold", justify=justify, width=wide)
    for row in given:
        made.add_row(*(Text(shown(cell, lines=True)) if isinstance(cell, str) else cell for cell in row))
    return made


@dataclass(frozen=True, slots=True)
class Width:
    """The wanted width of a column, and how narrow it may get in a first and in a second round."""

    natural: int
    first: int
    last: int

    @classmethod
    def of(cls, header: str, cells: Sequence[str | Text], *, whole: bool) -> Self:
        """Return the width of a column. Bars and states (``Text``) and ``whole`` columns are never folded."""
        lines = [line for cell in cells for line in str(cell).split("\n")]
        natural = max(map(cell_len, (header, *lines)))
        if any(isinstance(cell, Text) for cell in cells):
            return cls(natural, natural, natural)
        last = natural if whole else min(natural, max(cell_len(header), NARROW))
        return cls(natural, last, last)


def fit(columns: Sequence[Width], available: int) -> list[int]:
    """Return widths that fit into ``available``, narrowing the widest first.

    The result is wider only if none can shrink.
    """
    widths = [column.natural for column in columns]
    for bounds in ([column.first for column in columns], [column.last for column in columns]):
        while sum(widths) > available:
            most = max(range(len(widths)), key=lambda one: (widths[one] > bounds[one], widths[one]), default=None)
            if most is None or widths[most] <= bounds[most]:
                break
            widths[most] -= 1
    return widths


def age(moment: datetime | str) -> str:
    """Format the age of a moment in its biggest unit: ``42s``, ``3m``, ``2h``. The other host's clock may be ahead."""
    then = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return age_of((datetime.now(UTC) - then).total_seconds())


def age_of(past: float) -> str:
    """Format an age (s) in its biggest unit."""
    seconds = max(0, round(past))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def duration(seconds: float) -> str:
    """Format a duration (s) in its two biggest units at most: ``0.3ms``, ``840ms``, ``42s``, ``3m05s``."""
    milliseconds, tenths, whole = round(seconds * 1000), round(seconds, 1), round(seconds)
    if 0 < seconds < 0.001:
        return f"{max(0.01, seconds * 1000):.1g}ms"
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    if whole < 60:
        return f"{tenths:g}s" if tenths < 10 else f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def bar(part: float, whole: float, label: str, *, full_is_bad: bool = False) -> Text:
    """Return a small bar with its label: how much of a whole is used, or left."""
    share = min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0
    filled = round(share * BAR)
    danger = share if full_is_bad else 1 - share
    style = "red" if danger > 0.9 else "yellow" if danger > 0.7 else "green"
    return Text.assemble(("━" * filled, style), ("─" * (BAR - filled), "dim"), f" {label}")


def facts(*rows: tuple[str, RenderableType]) -> Table:
    """Return a table of names and values, one pair a line."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, Text(shown(value, lines=True)) if isinstance(value, str) else value)
    return made
