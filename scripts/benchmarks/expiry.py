"""How late sessions expire."""

import time
from datetime import datetime

from schemas.events import CloudEvent
from scripts.benchmarks.measuring import duration, until
from scripts.benchmarks.options import Options
from scripts.benchmarks.report import Plot, Sample, Subject, Target, figure
from scripts.benchmarks.servers import PLAIN
from scripts.benchmarks.stage import in_groups, named, running

APART = 0.02
"""Seconds between two that are due: fifty sessions end in each second, and a process with each."""

MARGIN = 3.0
"""How many times as long as at first the opening of one may take: all have to be open before the first is due."""


async def measure(options: Options) -> Subject:
    """All are open at once, and due one after the other; lateness is from the deadline to the event."""
    count = options.sizes.expiring
    async with running({"it": PLAIN.forked}) as stage:
        first = list(named("first", 1 + count // 10))
        pace = await duration(in_groups(lambda name: stage.client.create(name, "it"), first, 8)) / len(first)
        await in_groups(stage.client.close, first, 8)
        first_due = time.monotonic() + 2 + count * pace * MARGIN
        due = {name: first_due + number * APART for number, name in enumerate(named("s", count))}

        async def create(name: str) -> None:
            await stage.client.create(name, "it", timeout=due[name] - time.monotonic())

        await in_groups(create, list(due), 8)
        if early := stage.count("expired"):
            raise RuntimeError(f"{early} sessions expired before all {count} were open")

        async def all_gone() -> bool:
            return stage.count("expired") == count

        last_due = max(due.values()) - time.monotonic()
        await until(all_gone, f"{count} expired sessions", within=last_due + 60, pause=0.2)
    late = Sample.of([_lateness(event) for (what, _), event in stage.told.items() if what == "expired"])
    plot = Plot(
        name="expiry",
        title=f"Lateness of expiry, {count} sessions",
        kind="lines",
        x="ms",
        y="percent that are not later",
        series=[late.distribution("lateness")],
    )
    return Subject(
        figures=[
            figure(f"lateness of expiry, {count} sessions, median", late),
            figure(
                f"lateness of expiry, {count} sessions, 99th percentile", late.quantile(0.99) * 1000, target=Target(50)
            ),
        ],
        plots=[plot],
    )


def _lateness(event: CloudEvent) -> float:
    last = datetime.fromisoformat(event.data["last_accessed"])
    return (event.time - last).total_seconds() - float(event.data["timeout"])
