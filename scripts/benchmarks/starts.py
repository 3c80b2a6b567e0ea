"""Starts and ends of sessions: one by one, and many at once, against the SDK's client alone."""

import sys

from scripts.benchmarks.measuring import Figures, at_once, figures, one_by_one, ratio, running, sdk_start
from tests.harness import ECHO

SERVERS = {
    "standard library": ECHO,
    "SDK": [sys.executable, "-m", "consumer.processes.todo_server"],
}
STUBBORN = [*ECHO, "--ignore-eof"]


async def _starts(command: list[str], times: int) -> Figures:
    alone = figures(await one_by_one(lambda _: sdk_start(command), 5))
    async with running({"services": {"it": {"command": command}}}) as mcp:
        single = await one_by_one(lambda number: mcp.client.create(f"one-{number}", "it"), times // 2)
        together = await at_once(lambda number: mcp.client.create(f"all-{number}", "it"), times)
    ours = figures(single)
    return {
        "sdk_alone_start_and_end": alone,
        "create": ours,
        "ratio": ratio(ours, alone),
        "per_second_one_by_one": round(len(single) / sum(single), 1),
        f"per_second_{times}_at_once": round(times / together, 1),
        "at_once_against_one_by_one": round(times / together * sum(single) / len(single), 2),
    }


async def _warm(command: list[str], times: int) -> Figures:
    service = {"command": command, "warm": {"min": times, "max": times}}
    async with running({"services": {"it": service}}) as mcp:
        while (await mcp.client.list_workers())[0]["services"]["it"]["warm"] < times:
            pass
        return figures(await one_by_one(lambda number: mcp.client.create(f"warm-{number}", "it"), times))


async def _ends(times: int) -> Figures:
    async with running({"services": {"it": {"command": STUBBORN}}}) as mcp:
        await at_once(lambda number: mcp.client.create(f"s-{number}", "it"), times + 3)
        single = figures(await one_by_one(lambda number: mcp.client.close(f"s-{times + number}"), 3))
        together = await at_once(lambda number: mcp.client.close(f"s-{number}"), times)
    return {
        "one_close": single,
        f"{times}_closes_at_once_ms": round(together * 1000, 1),
        "ratio": round(together * 1000 / single["median_ms"], 2),
    }


async def measure(times: int = 20) -> Figures:
    """Cold starts of two kinds of servers, starts from a warm pool, and ends of a server that ignores EOF."""
    found: Figures = {name: await _starts(command, times) for name, command in SERVERS.items()}
    found |= {f"{name}, warm": await _warm(command, 10) for name, command in SERVERS.items()}
    return found | {"closes of a server that ignores EOF": await _ends(32)}
