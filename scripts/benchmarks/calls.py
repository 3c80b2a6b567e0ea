"""Whole phone calls through one worker: from the raw event to the session, and from the end to its last event."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil

from scripts.benchmarks import profile
from scripts.benchmarks.measuring import brokers, in_turns, machine_seconds, processor_seconds, shared, timed
from scripts.benchmarks.options import Options
from scripts.benchmarks.references import amqp_echo
from scripts.benchmarks.report import Figure, Sample, Share, Subject, figure
from scripts.benchmarks.servers import PLAIN
from scripts.benchmarks.stage import Stage, running


async def measure(options: Options) -> Subject:
    """Calls that start and end as quickly as they can, with forked sessions, from the warm pool, and cold ones."""
    calls, at_once = options.sizes.phone_calls, options.sizes.at_once
    services = {"forked": PLAIN.forked, "warm": PLAIN.warm(at_once), "cold": PLAIN.cold}
    routes = [{"match": {"to": service}, "services": [service]} for service in services]
    figures: list[Figure] = []
    shares: list[Share] = []
    notes: list[str] = []
    async with amqp_echo() as echo, running(services, routes=routes) as stage:
        await stage.warm("warm", at_once)
        for service in services:
            many = calls if service != "cold" else max(2, calls // 5)
            await _phone(stage, f"first-{service}", service)
            opened: list[float] = []
            uses = _Uses(stage)
            took, _ = await shared(
                lambda number, to=service: _phone(stage, f"{to}-{number}", to, opened),  # type: ignore[misc]  # noqa: B023
                many,
                at_once,
            )
            notes.append(uses.told(f"{many / took:.0f} calls/s, {service}", took))
            figures += [
                figure(f"calls, start to end, {service}", many / took, unit="/s"),
                figure(f"from its start to its session, {at_once} at once, {service}", Sample.of(opened)),
                figure(f"processor time of the worker for a call, {service}", uses.of_worker / many * 1000),
            ]

        async def from_the_pool(number: int) -> float:
            await stage.warm("warm", at_once)
            took: list[float] = []
            await _phone(stage, f"single-{number}", "warm", took)
            return took[0]

        if options.profile:  # in a pass of its own: who is watched is slower
            async with profile.of(stage.workers[0].pid, keep=options.stacks) as shares:
                await shared(lambda number: _phone(stage, f"watched-{number}", "forked"), calls, at_once)
        bare = timed(lambda _: echo["quorum"].ask(b"{}"))
        single = await in_turns({"ours": from_the_pool, "quorum": bare}, max(2, calls // 10))
    alone = "from its start to its session, one by one, warm"
    figures.append(figure(alone, single["ours"], against={"quorum": single["quorum"]}))
    return Subject(figures=figures, profile=shares, notes=notes)


class _Uses:
    """Who uses the processors from now on."""

    def __init__(self, stage: Stage) -> None:
        known = {
            "the worker": stage.workers,
            "the broker": brokers(os.environ["AMQP_URL"]),
            "who sends the calls": [psutil.Process()],
        }
        self._readers: dict[str, Callable[[], float]] = {"everything": machine_seconds}
        self._readers |= {who: partial(processor_seconds, processes) for who, processes in known.items()}
        self._before = {who: read() for who, read in self._readers.items()}
        self.of_worker = 0.0
        """Seconds, once it has been told."""

    def told(self, what: str, seconds: float) -> str:
        """Each one's share of all cores in this time; what nobody known has used is the MCP servers'."""
        used = {who: read() - self._before[who] for who, read in self._readers.items()}
        self.of_worker = used["the worker"]
        everything = used.pop("everything")
        used["MCP servers and their starts"] = max(0.0, everything - sum(used.values()))
        capacity = seconds * (psutil.cpu_count() or 1)
        shares = ", ".join(f"{who} {spent / capacity:.0%}" for who, spent in used.items())
        return f"{what}: {everything / capacity:.0%} of all cores: {shares}."


async def _phone(stage: Stage, name: str, to: str, opened: list[float] | None = None) -> None:
    """One call; adds how long it took (s) until its session was told of."""
    event: dict[str, Any] = {"call_id": name, "kind": "started", "direction": "inbound", "to": to}
    loop = asyncio.get_running_loop()
    began = loop.time()
    await stage.client.publish_call_event(event)
    await stage.event("created", name)
    if opened is not None:
        opened.append(loop.time() - began)
    await stage.client.publish_call_event(event | {"kind": "ended"})
    await stage.event("closed", name)
