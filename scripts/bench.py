"""Measure: scripts/bench [tools|starts|calls|list ...] [--json]. Needs AMQP_URL; scripts/bench brings a broker."""

import argparse
import json
import sys
from collections.abc import Awaitable, Callable

import structlog
import uvloop

from scripts.benchmarks import calls, listing, starts, tools
from scripts.benchmarks.measuring import Figures

SUBJECTS: dict[str, Callable[[], Awaitable[Figures]]] = {
    "tools": tools.measure,
    "starts": starts.measure,
    "calls": calls.measure,
    "list": listing.measure,
}


def show(figures: object, indent: int = 0) -> None:
    """Print figures as lines."""
    assert isinstance(figures, dict)
    for name, value in figures.items():
        if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
            print(f"{'':{indent}}{name}")
            show(value, indent + 2)
        else:
            print(f"{'':{indent}}{name:36} {value}")


async def measure(subjects: list[str]) -> dict[str, object]:
    """The figures of each subject."""
    return {subject: await SUBJECTS[subject]() for subject in subjects}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], help="what to measure; all without any")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    found = uvloop.run(measure(options.subjects or list(SUBJECTS)))
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
