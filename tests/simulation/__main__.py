"""``scripts/test simulate``: live many worlds, one seed each, and tell the story of what went wrong."""

import argparse
import gc
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts have an order of their own otherwise
    os.execve(
        sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"}
    )

from tests.simulation.findings import WHERE, made_with
from tests.simulation.many import Summary, batches
from tests.simulation.mutating import MUTATIONS, mutated
from tests.simulation.orders import ORDERS
from tests.simulation.run import Logs, Outcome, live
from tests.simulation.shrink import shrunk
from tests.simulation.world.nature import Nature, simulated
from tests.simulation.world.plan import SCRIPTS, Plan, planned, swarmed


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="scripts/test simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, help="how many worlds; 200, or one of an order")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument(
        "--swarm", nargs="?", const="", choices=["", *SCRIPTS], help="worlds of the swarm; of one script if it is named"
    )
    parser.add_argument("--seed", type=int, nargs="+", help="these only, each with its story")
    parser.add_argument("--calls", type=int, default=100, help="calls in a world")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure, or finding")
    parser.add_argument("--no-shrink", action="store_true", help="tell of a failure as it is")
    parser.add_argument("--quiet", action="store_true", help="no story")
    parser.add_argument("--twice", action="store_true", help="live each world twice and compare the traces")
    parser.add_argument(
        "--order", nargs="+", choices=sorted(ORDERS), metavar="NAME", help="worlds that orders.py has, by name"
    )
    parser.add_argument(
        "--mutations",
        nargs="*",
        metavar="NAME",
        help="make these mistakes, which findings.py has by name (all), where each is found soonest",
    )
    parser.add_argument("--jobs", type=int, default=1, help="how many processes live worlds at once")
    parser.add_argument("--summary", type=Path, help="a file for the sums; a run that has one goes on where it stopped")
    options = parser.parse_args()
    if unknown := set(options.mutations or ()) - MUTATIONS.keys():
        parser.error(f"there is no mistake {', '.join(sorted(unknown))!r}; there are: {'; '.join(sorted(MUTATIONS))}")
    if options.seeds is None:
        options.seeds = 1 if options.order else 200
    gc.disable()
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # its process was killed
    with simulated() as begin:
        logs = Logs()
        gc.collect()
        gc.freeze()
        each = [argparse.Namespace(**{**vars(options), "order": order}) for order in options.order or [None]]
        if options.mutations is not None:
            return sum(_find(name, one, begin, logs) for one in each for name in options.mutations or WHERE)
        return sum([_run(one, begin, logs) for one in each])


def _run(options: argparse.Namespace, begin: Callable[[Nature], None], logs: Logs) -> int:
    def one(seed: int) -> Outcome:
        plan = _plan(options, seed)
        outcome = live(plan, begin, logs, traced=options.twice)
        if options.twice and live(plan, begin, logs, traced=True).trace != outcome.trace:
            outcome.problems.append("the same seed did not give the same trace")
        return outcome

    seeds = _seeds(options) if options.seed is None else options.seed
    summary = Summary(options.summary)
    totals: Counter[str] = Counter()
    failed: list[int] = []
    took = 0.0
    for batch in batches(one, summary.left(seeds), jobs=options.jobs, keep_going=options.keep_going):
        summary.add(batch)
        totals += batch.counts
        took += batch.cpu
        for outcome in batch.failed:
            failed.append(outcome.plan.seed)
            _report(outcome, options, begin, logs)
        if failed and not options.keep_going:
            break
    if options.seed is not None and not failed and not options.quiet:
        for seed in options.seed:
            _tell(live(_plan(options, seed), begin, logs, telling=True))
    told = ", ".join(f"{name} {count}" for name, count in sorted(totals.items()))
    if options.order:
        print(f"{options.order}:", end=" ")  # noqa: T201
    speed = totals["calls"] / took if took else 0.0
    print(f"{totals['worlds']} worlds in {took:.1f} s of CPU, {speed:.0f} calls/s: {told}")  # noqa: T201
    print(f"failed: {failed or 'none'}")  # noqa: T201
    return 1 if failed else 0


def _report(outcome: Outcome, options: argparse.Namespace, begin: Callable[[Nature], None], logs: Logs) -> None:
    """Say what went wrong in a world, make it smaller, and tell its story."""
    told = f"seed {outcome.plan.seed}: {len(outcome.problems)} problems"
    print(told, *outcome.problems[:12], sep="\n  ", flush=True)  # noqa: T201
    if not options.no_shrink:
        outcome = shrunk(outcome, lambda smaller: live(smaller, begin, logs))
    if not options.quiet:
        _tell(live(outcome.plan, begin, logs, telling=True))


def leave(code: int) -> None:
    """End the interpreter; what killed workers have left is collected then."""
    sys.unraisablehook = lambda *_: None
    sys.exit(code)


def _seeds(options: argparse.Namespace) -> range:
    return range(options.first, options.first + options.seeds)


def _plan(options: argparse.Namespace, seed: int) -> Plan:
    if options.order:
        return replace(ORDERS[options.order], seed=seed)
    if options.swarm is not None:
        return swarmed(seed, calls=options.calls, script=options.swarm)
    return planned(seed, calls=options.calls)


def _find(name: str, options: argparse.Namespace, begin: Callable[[Nature], None], logs: Logs) -> int:
    """Live worlds with a mistake until it is found; returns whether it was not.

    A harmless one is made together with the one that takes away what makes up for it. What goes wrong with both has to
    go right with either of them, and with none. If we keep going, all worlds are lived with and without them, to see
    how often either goes wrong.
    """
    if options.swarm is None and options.order is None and (where := WHERE.get(name)) is not None:
        kind, _, order = where.rpartition(": ")
        chosen = {"order": order} if kind else {"swarm": where}
        options = argparse.Namespace(**{**vars(options), **chosen})
    where = options.order or options.swarm or "any"
    mistakes = made_with(name)
    fewer = [some for count in range(len(mistakes)) for some in combinations(mistakes, count)]
    told = f"{' + '.join(mistakes)} | {where}"

    def lived(plan: Plan, some: tuple[str, ...]) -> list[str]:
        with mutated(*some):
            return live(plan, begin, logs).problems

    tried = found = without = 0
    for tried, seed in enumerate(_seeds(options), start=1):
        plan = _plan(options, seed)
        problems = lived(plan, mistakes)
        if options.keep_going:
            found += bool(problems)
            without += any(lived(plan, some) for some in fewer)
        elif problems and not any(lived(plan, some) for some in fewer):
            print(f"{told} | {tried} | {problems[0][:160]}", flush=True)  # noqa: T201
            return 0
    if options.keep_going:
        print(f"{told} | {found} of {tried} with it, {without} without it", flush=True)  # noqa: T201
        return int(found <= without)
    print(f"{told}: not in {tried}", flush=True)  # noqa: T201
    return 1


def _tell(outcome: Outcome) -> None:
    """Print the story of a world."""
    plan = outcome.plan
    print(f"--- seed {plan.seed}: {plan.conditions}")  # noqa: T201
    for call, steps in plan.calls.items():
        print(f"    {call}: {steps}")  # noqa: T201
    for fault in plan.faults:
        print(f"    fault {fault}")  # noqa: T201
    for when, who, what in outcome.story:
        print(f"{when - 1000.0:10.4f} {who:8} {what}")  # noqa: T201
    print(*outcome.problems, sep="\n  ")  # noqa: T201


if __name__ == "__main__":
    leave(main())
