"""What it costs to make a call event of what a platform sends."""

import time
from pathlib import Path
from statistics import median

from consumer.telephony import translate
from scripts.benchmarks.options import Options
from scripts.benchmarks.report import Subject, Target, figure

SAMPLES = Path(__file__).resolve().parents[2] / "tests" / "samples" / "call-events"

AT_ONCE = 50
"""Translations between two looks at the clock of the processor, which is coarser than one of them."""

STRANGER = b'{"what": "is this", "from": "somebody", "who": {"is": "unknown"}}'


async def measure(options: Options) -> Subject:
    """Processor time of each recorded event, all translators in place; a platform's figure is its dearest event."""
    turns = 1 if options.sizes.rounds == 1 else 20
    spent: dict[str, list[float]] = {}
    for file in sorted(SAMPLES.glob("*/*.json")):
        spent.setdefault(file.parent.name, []).append(_cost(file.read_bytes(), turns))
    dearest = {platform: max(costs) for platform, costs in spent.items()}
    ordinary = median(cost for costs in spent.values() for cost in costs)
    worst = max(dearest, key=lambda platform: dearest[platform])
    return Subject(
        figures=[
            figure("one event, median of all samples", ordinary, target=Target(0.1)),
            figure(f"one event, the dearest sample ({worst})", dearest[worst], target=Target(0.1)),
            figure("one body that no platform sends, with the reasons", _cost(STRANGER, turns)),
        ],
    )


def _cost(body: bytes, turns: int) -> float:
    """Milliseconds of processor for one translation: the least of several turns, since others only ever add to it."""
    least = float("inf")
    for _ in range(turns):
        began = time.process_time()
        for _ in range(AT_ONCE):
            translate(body)
        least = min(least, time.process_time() - began)
    return least / AT_ONCE * 1000
