"""The figures of ``docs/performance.md`` and its pictures, from what a run of ``scripts/bench`` has written down."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

from docs.generate.markdown import table
from scripts.benchmarks.drawing import pictures
from scripts.benchmarks.report import Report, Subject
from scripts.benchmarks.show import TITLES, cells, columns, heads, value

FILE = Path(__file__).resolve().parents[1] / "figures.json"
PICTURES = FILE.with_name("img")

UNKNOWN = "not known"
UNTIDY = 0.5
"""The load of a machine from which on something else ran on it."""


FRONT = (
    ("http", "one tool call, worker --gateway", "one tool call over HTTP"),
    ("http", "tool calls, 48 callers on 12 sessions, worker --gateway", "tool calls by 48 callers at once"),
    ("starts", "SDK, forked", "opening a session (server with the MCP SDK, forked by mcp-sessions)"),
    ("bursts", "32 creates at once, standard library, forked", "opening 32 sessions at once (forked by mcp-sessions)"),
    ("bursts", "32 closes at once, standard library, forked", "closing 32 sessions at once"),
)
"""The figures on the front page: subject, figure, and what a reader who is new calls it."""


@cache
def report() -> Report:
    """The run that is told of."""
    return Report.model_validate_json(FILE.read_text(encoding="utf-8"))


def _machine() -> str:
    run = report()
    machine = run.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    told = (
        f"One run on {run.made}: {machine.cores} cores ({machine.processor}), {machine.memory_gb} GB, "
        f"{machine.system}, RabbitMQ {machine.rabbitmq}, Python {machine.python}, {versions}. "
        "Client, broker, workers, MCP servers and what they are compared with all run on these cores."
    )
    warnings = ["**Of tiny sizes: these figures say nothing.**"] if run.quick else []
    if machine.load_before > UNTIDY * machine.cores:
        warnings.append(
            f"**The machine was busy with something else (load {machine.load_before:g} on {machine.cores} cores): the "
            "times are too long, and only the ratios tell something.**"
        )
    return "\n\n".join([told, *warnings])


def _verdict() -> str:
    rows = [
        (TITLES.get(name, name), figure.what, figure.target, UNKNOWN if figure.met is None else _word(figure.met))
        for name, subject in report().subjects.items()
        for figure in subject.figures
        if figure.target
    ]
    known = [row[3] for row in rows if row[3] != UNKNOWN]
    head = f"{known.count('met')} of {len(known)} targets that can be judged were met."
    return f"{head}\n\n{table(('subject', 'what', 'target', 'result'), rows)}"


def _word(met: bool) -> str:
    return "met" if met else "**missed**"


def _subject(name: str) -> str:
    return "\n\n".join(_of(report().subjects[name])) if name in report().subjects else "Not measured in this run."


def _of(subject: Subject) -> Iterator[str]:
    references = columns(subject)
    yield table(heads(references), (cells(figure, references) for figure in subject.figures))
    yield from subject.notes
    yield from (f"![{plot.title}](img/{plot.name}.svg)" for plot in subject.plots)


def _profile() -> str:
    found = report().subjects.get("calls")
    rows = [(share.part, f"{share.share:.0%}") for share in found.profile] if found else []
    return table(("part", "share of the worker's time"), rows) if rows else "No profile was taken in this run."


def _front() -> str:
    rows = []
    for subject, what, said in FRONT:
        figures = report().subjects[subject].figures if subject in report().subjects else []
        rows += [
            (said, value(figure.value, figure.unit), value(figure.against["peer"], figure.unit))
            for figure in figures
            if figure.what == what and "peer" in figure.against
        ]
    return table(("", "mcp-sessions", "SignalWire's gateway"), rows) if rows else "Not measured in this run."


def drawn() -> Iterator[tuple[Path, str]]:
    """Every picture, with the file that it is in."""
    return ((PICTURES / f"{name}.svg", picture) for name, picture in pictures(report()).items())


PARTS: dict[str, Callable[[], str]] = {
    "performance-machine": _machine,
    "performance-front": _front,
    "performance-verdict": _verdict,
    "performance-profile": _profile,
    **{f"performance-{name}": partial(_subject, name) for name in TITLES},
}
