"""Measure on a real RabbitMQ, each figure beside references of the same run. scripts/bench brings the broker."""

import argparse
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog
import uvloop
from rich.console import Console

from scripts.benchmarks import (
    bursts,
    calls,
    drawing,
    expiry,
    listing,
    over_http,
    peer,
    profile,
    scale,
    starts,
    tools,
    translating,
)
from scripts.benchmarks.machine import this_machine
from scripts.benchmarks.options import QUICK, Options, Sizes
from scripts.benchmarks.report import Report, Subject
from scripts.benchmarks.servers import MeasuredServer, time_server
from scripts.benchmarks.show import show
from tests.realservers.install import Unreachable

SUBJECTS: dict[str, Callable[[Options], Awaitable[Subject]]] = {
    "starts": starts.measure,
    "bursts": bursts.measure,
    "tools": tools.measure,
    "http": over_http.measure,
    "calls": calls.measure,
    "events": translating.measure,
    "list": listing.measure,
    "scale": scale.measure,
    "expiry": expiry.measure,
}
PUBLISHED = Path(__file__).resolve().parents[1] / "docs" / "figures.json"


async def measure(subjects: list[str], options: Options, *, quick: bool) -> Report:
    """The figures of each subject."""
    machine = await this_machine(options)
    found: dict[str, Subject] = {}
    for subject in subjects:
        began = time.monotonic()
        print(f"bench: {subject} ...", file=sys.stderr, flush=True)
        found[subject] = await SUBJECTS[subject](options)
        print(f"bench: {subject} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return Report(made=datetime.now(UTC).date().isoformat(), quick=quick, machine=machine, subjects=found)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    made.add_argument("subjects", nargs="*", help=f"any of {', '.join(SUBJECTS)}; all without one")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the report")
    made.add_argument("--plots", type=Path, metavar="FOLDER", help="draw, as SVG")
    made.add_argument("--compare", type=Path, metavar="FILE", help="a report of before: adds a column of ratios")
    made.add_argument("--publish", action="store_true", help="write docs/figures.json and renew the docs from it")
    made.add_argument(
        "--peer",
        nargs="?",
        type=Path,
        const=peer.FOLDER,
        metavar="PYTHON",
        help="compare with SignalWire's gateway, which this Python has; without one it is installed into .peer",
    )
    made.add_argument("--real", action="store_true", help="install mcp-server-time from PyPI, and measure it as well")
    made.add_argument("--profile", action="store_true", help="profile the worker under calls (needs py-spy)")
    made.add_argument("--stacks", type=Path, metavar="FILE", help="keep the profile's stacks, for a flame graph")
    made.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, and measures nothing")
    return made


def main() -> int:
    """Measure, and tell."""
    given = (made := parser()).parse_args()
    if unknown := set(given.subjects) - {*SUBJECTS, "all"}:
        made.error(f"nothing measures {', '.join(sorted(unknown))}")
    if (given.profile or given.stacks) and profile.available() is None:
        made.error("--profile needs py-spy: .venv/bin/python -m pip install -e '.[bench]'")
    subjects = [one for one in SUBJECTS if not given.subjects or one in given.subjects or "all" in given.subjects]
    options = Options(
        sizes=QUICK if given.quick else Sizes(),
        peer=peer.install() if given.peer == peer.FOLDER else given.peer,
        time_server=None if given.quick and not given.real else _time_server(made, install=given.real),
        profile=given.profile or given.stacks is not None,
        stacks=given.stacks,
    )
    before = Report.model_validate_json(given.compare.read_text()) if given.compare else None
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    report = uvloop.run(measure(subjects, options, quick=given.quick))
    show(report, Console(width=None if sys.stdout.isatty() else 150), before=before)
    if given.json:
        given.json.write_text(written(report))
    if given.plots:
        given.plots.mkdir(parents=True, exist_ok=True)
        for name, picture in drawing.pictures(report).items():
            (given.plots / f"{name}.svg").write_text(picture)
    if given.publish:
        PUBLISHED.write_text(written(report))
        from docs import generate  # noqa: PLC0415 - it reads the figures when it is imported

        generate.renew()
    return 0


def _time_server(made: argparse.ArgumentParser, *, install: bool) -> MeasuredServer | None:
    """The foreign server; ends the program with a sentence when its registry is out of reach."""
    try:
        return time_server(install=install)
    except Unreachable as error:
        made.error(f"--real: mcp-server-time cannot be installed: {error}")


def written(report: Report) -> str:
    """A report as it is kept."""
    return report.model_dump_json(indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
