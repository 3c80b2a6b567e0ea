"""A report as tables: for the terminal, and as rows for the documentation."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scripts.benchmarks.report import REFERENCES, Figure, Reference, Report, Subject

TITLES = {
    "starts": "Starts",
    "bursts": "Many at once",
    "tools": "Tool calls",
    "http": "Over HTTP",
    "calls": "Phone calls through one worker",
    "events": "Call events",
    "list": "Listing",
    "scale": "From few sessions to many",
    "expiry": "Expiry",
}


def value(amount: float, unit: str) -> str:
    """An amount with its unit, as people write it."""
    digits = 0 if amount >= 100 else 1 if amount >= 10 else 2
    return f"{amount:,.{digits}f}{'' if unit in {'/s', '×'} else ' '}{unit}"


def verdict(figure: Figure) -> str:
    """The target, and whether it was met; nothing without one."""
    if not figure.target:
        return ""
    return f"{figure.target}: {'not known' if figure.met is None else 'met' if figure.met else 'missed'}"


def columns(subject: Subject) -> list[Reference]:
    """The references that any figure of a subject has."""
    return [name for name in REFERENCES if any(name in figure.against for figure in subject.figures)]


def heads(references: Iterable[Reference]) -> list[str]:
    """The heads of a table."""
    return ["what", "median", "p99", *(f"× {REFERENCES[name]}" for name in references), "target"]


def cells(figure: Figure, references: Iterable[Reference]) -> list[str]:
    """A row of it; each ratio with the reference's own figure."""
    row = [figure.what, value(figure.value, figure.unit), "" if figure.p99 is None else value(figure.p99, figure.unit)]
    for name in references:
        ratio = figure.ratio(name)
        row.append("" if ratio is None else f"{_ratio(ratio)} ({value(figure.against[name], figure.unit)})")
    return [*row, verdict(figure)]


def _ratio(ratio: float) -> str:
    return f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def show(report: Report, console: Console, *, before: Report | None = None) -> None:
    """Print every subject; ``before`` adds a column with the ratio to what an earlier run measured."""
    for name, subject in report.subjects.items():
        references = columns(subject)
        table = Table(title=TITLES.get(name, name), title_justify="left", title_style="bold")
        for number, head in enumerate([*heads(references), *(["× before"] if before else [])]):
            table.add_column(head, justify="left" if number == 0 or head == "target" else "right", overflow="fold")
        for place, figure in enumerate(subject.figures):
            told: list[str | Text] = list(cells(figure, references))
            told[-1] = Text(verdict(figure), style={True: "green", False: "red", None: ""}[figure.met])
            if before is not None:
                told.append(_against_before(before, name, place, figure))
            table.add_row(*told)
        console.print(table)
        for share in subject.profile:
            console.print(f"  {share.share:6.1%}  {share.part}")
        for note in subject.notes:
            console.print(note)


def _against_before(before: Report, subject: str, place: int, figure: Figure) -> str:
    found = before.subjects.get(subject)
    if found is None or place >= len(found.figures) or found.figures[place].what != figure.what:
        return ""
    old = found.figures[place].value
    return _ratio(figure.value / old) if old else ""
