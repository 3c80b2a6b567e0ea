"""Formats columns that fit a width exactly: leaves out the least important ones, then shortens long cells."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from consumer.cli.screen import GAP, Width, fit

ELLIPSIS = "…"

_PLAIN = Console(file=io.StringIO())
"""What Rich asks how wide a tab is; nothing is printed on it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: ``least`` is how narrow it may get, ``rank`` when it is left out (0: never, the highest first).

    It is narrowed below ``kept`` only when the others are as narrow as they may get.
    """

    title: str
    least: int = 0
    kept: int = 0
    rank: int = 0
    right: bool = False
    middle: bool = False
    """Whether it is shortened in its middle, as ids are, because they differ at their ends."""


def shortened(text: Text, width: int, *, middle: bool = False) -> Text:
    """Shorten a text to at most ``width`` cells."""
    if cell_len(text.plain) <= width:
        return text
    if not middle or width < 3:
        cut = text.copy()
        cut.truncate(width, overflow="ellipsis")
        return cut
    tail = (width - 1) // 2
    head = set_cell_size(text.plain, width - 1 - tail).rstrip("\0")
    end = text.plain[-tail:]
    while cell_len(end) > tail:
        end = end[1:]
    return Text(f"{head}{ELLIPSIS}{end}", style=text.style)


def line(text: Text, width: int) -> Text:
    """Return one line, filled to ``width``."""
    made = text.copy()
    made.truncate(width, overflow="ellipsis", pad=True)
    made.no_wrap = True
    return made


def folded(text: Text, width: int, indent: int) -> list[Text]:
    """A text as lines of ``width``, the first one and then indented ones."""
    first, *more = text.wrap(_PLAIN, width) or [Text()]
    if more:
        rest = Text(" ").join(more)
        more = [Text(" " * indent).append_text(one) for one in rest.wrap(_PLAIN, width - indent)]
    return [line(one, width) for one in (first, *more)]


def lines(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> list[Text]:
    """Return a line of titles and one for each row, at most ``width`` wide."""
    widths = _widths(columns, rows, width)
    titles = [Text(column.title, style="bold") for column in columns]
    return [_row(columns, cells, widths, width) for cells in (titles, *rows)]


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> list[int]:
    """Return the width of each column; 0 if it is left out."""
    natural = [
        max(cell_len(cell.plain) for cell in cells)
        for cells in zip(*([Text(column.title) for column in columns], *rows), strict=True)
    ]
    kept = list(range(len(columns)))
    while True:
        given = [
            Width(natural[number], max(narrow, min(natural[number], columns[number].kept)), narrow)
            for number in kept
            if (narrow := min(natural[number], columns[number].least or natural[number]))
        ]
        room = width - GAP * (len(kept) - 1)
        least = sum(one.last for one in given)
        out = max(kept, key=lambda number: columns[number].rank)
        if least <= room or not columns[out].rank:
            break
        kept.remove(out)
    return [dict(zip(kept, fit(given, room), strict=True)).get(number, 0) for number in range(len(columns))]


def _row(columns: Sequence[Column], cells: Iterable[Text], widths: Sequence[int], width: int) -> Text:
    made = Text()
    for column, cell, wide in zip(columns, cells, widths, strict=True):
        if not wide:
            continue
        if made:
            made.append(" " * GAP)
        text = shortened(cell, wide, middle=column.middle)
        space = " " * (wide - cell_len(text.plain))
        made.append_text(Text.assemble(space, text) if column.right else Text.assemble(text, space))
    return line(made, width)
