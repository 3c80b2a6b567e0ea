"""Plots as SVG: small, the same for the same figures, and readable on light and on dark pages.

Lines over numbers, and groups of horizontal bars; a logarithmic plot has its values, bars or x, on a scale of powers.
"""

import math
from collections.abc import Callable, Iterator
from html import escape

from scripts.benchmarks.report import Plot, Report, Series

WIDTH = 760
LEFT, RIGHT, TOP, BOTTOM = 64, 28, 88, 48
BAR, GAP, GROUP = 15, 3, 22
TOP_OF_BARS = 62
HEIGHT = 300
"""Of the area that lines are drawn in."""

STYLE = """\
text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #57606a }
.title { font-size: 15px; font-weight: 600; fill: #1f2328 }
.grid { stroke: #d8dee4; stroke-width: 1 } .axis { stroke: #8c959f; stroke-width: 1 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.c0 { --c: #8c959f } .c1 { --c: #bf8700 } .c2 { --c: #0969da } .c3 { --c: #1a7f37 } .c4 { --c: #8250df }
.bar, .dot { fill: var(--c) } .line { stroke: var(--c) }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1 } .title { fill: #f0f6fc } .grid { stroke: #30363d } .axis { stroke: #6e7681 }
  .c1 { --c: #d29922 } .c2 { --c: #4493f8 } .c3 { --c: #3fb950 } .c4 { --c: #ab7df8 }
}"""

Scale = Callable[[float], float]


def pictures(report: Report) -> dict[str, str]:
    """Every plot of a report, by its name."""
    return {plot.name: draw(plot) for subject in report.subjects.values() for plot in subject.plots}


def draw(plot: Plot) -> str:
    """A plot as an SVG document."""
    parts, height = _bars(plot) if plot.kind == "bars" else _lines(plot)
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(plot.title)}</title>",
        f"<style>\n{STYLE}\n</style>",
        _text(LEFT, 22, plot.title, "title"),
        *_legend(plot.series),
    ]
    return "\n".join([*head, *parts, "</svg>\n"])


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{named} text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _legend(series: list[Series]) -> Iterator[str]:
    x = float(LEFT)
    if len(series) > 1:
        for number, one in enumerate(series):
            yield f'<rect class="bar c{number}" x="{x:g}" y="36" width="11" height="11" rx="2"/>'
            yield _text(x + 16, 46, one.name)
            x += 16 + 7 * len(one.name) + 18


# Scales.


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten around values above nothing."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _round_steps(high: float, wanted: int = 5) -> list[float]:
    """Round numbers from nothing to a value at least."""
    if high <= 0:
        return [0.0, 1.0]
    raw = high / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * times for times in (1, 2, 2.5, 5, 10) if size * times >= raw * 0.999)
    return [step * number for number in range(math.ceil(high / step - 1e-9) + 1)]


def _axis(values: list[float], begin: float, end: float, *, logarithmic: bool) -> tuple[list[float], Scale]:
    """Where to put marks, and where a value is between ``begin`` and ``end``."""
    positive = [value for value in values if value > 0]
    if logarithmic and positive:
        marks = _powers(min(positive), max(positive))
        low, high = math.log10(marks[0]), math.log10(marks[-1])
        least = marks[0]
        return marks, lambda value: begin + (end - begin) * (math.log10(max(value, least)) - low) / (high - low)
    marks = _round_steps(max(values, default=1.0))
    return marks, lambda value: begin + (end - begin) * value / marks[-1]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# Kinds.


def _bars(plot: Plot) -> tuple[list[str], int]:
    names = list(dict.fromkeys(str(name) for one in plot.series for name, _ in one.points))
    left = LEFT + 7 * max(map(len, names)) - 30
    room = len(plot.series) * (BAR + GAP) + GROUP
    bottom = TOP_OF_BARS + len(names) * room
    marks, scale = _axis(
        [value for one in plot.series for _, value in one.points],
        left,
        WIDTH - RIGHT - 60,
        logarithmic=plot.logarithmic,
    )
    parts = []
    for mark in marks:
        parts += [
            _line(scale(mark), TOP_OF_BARS, scale(mark), bottom - GROUP / 2, "grid"),
            _text(scale(mark), bottom + 6, f"{_number(mark)} {plot.y}".strip(), anchor="middle"),
        ]
    for group, name in enumerate(names):
        top = TOP_OF_BARS + group * room + 6
        parts.append(_text(left - 8, top + (room - GROUP) / 2 + 2, name, anchor="end"))
        for number, one in enumerate(plot.series):
            for value in (value for of, value in one.points if str(of) == name):
                y = top + number * (BAR + GAP)
                wide = max(1.0, scale(value) - left)
                parts.append(
                    f'<rect class="bar c{number}" x="{left}" y="{y}" width="{wide:.1f}" height="{BAR}" rx="2"/>'
                )
                parts.append(_text(round(left + wide + 5), y + BAR - 3, _number(value)))
    parts.append(_line(left, TOP_OF_BARS, left, bottom - GROUP / 2, "axis"))
    return parts, bottom + 20


def _lines(plot: Plot) -> tuple[list[str], int]:
    points = [[(float(x), y) for x, y in one.points] for one in plot.series]
    flat = [point for one in points for point in one]
    right, bottom = WIDTH - RIGHT, TOP + HEIGHT
    across, at_x = _axis([x for x, _ in flat], LEFT, right, logarithmic=plot.logarithmic)
    up, at_y = _axis([y for _, y in flat], bottom, TOP, logarithmic=False)
    parts = []
    for mark in across:
        parts += [
            _line(at_x(mark), TOP, at_x(mark), bottom, "grid"),
            _text(at_x(mark), bottom + 17, _number(mark), anchor="middle"),
        ]
    for mark in up:
        parts += [
            _line(LEFT, at_y(mark), right, at_y(mark), "grid"),
            _text(LEFT - 7, at_y(mark) + 4, _number(mark), anchor="end"),
        ]
    parts += [
        _line(LEFT, bottom, right, bottom, "axis"),
        _text((LEFT + right) / 2, bottom + 38, plot.x, anchor="middle"),
        _text(LEFT - 30, TOP - 12, plot.y),
    ]
    for number, one in enumerate(points):
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in one)
        parts.append(f'<polyline class="line c{_colour(number, plot)}" points="{path}"/>')
        if len(one) <= 15:
            parts += [
                f'<circle class="dot c{_colour(number, plot)}" cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3"/>'
                for x, y in one
            ]
    return parts, bottom + BOTTOM


def _colour(number: int, plot: Plot) -> int:
    return 2 if len(plot.series) == 1 else number
