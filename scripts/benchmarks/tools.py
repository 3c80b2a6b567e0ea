"""Tool calls: one round trip, and many over many sessions, beside bare round trips over the same broker."""

import statistics
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from scripts.benchmarks.measuring import for_a_while, in_turns, processor_seconds, shared, timed
from scripts.benchmarks.options import Options
from scripts.benchmarks.peer import agent, gateway
from scripts.benchmarks.references import amqp_echo, sdk_client
from scripts.benchmarks.report import Figure, Plot, Reference, Sample, Subject, Target, figure
from scripts.benchmarks.servers import PLAIN
from scripts.benchmarks.stage import named, running

BODY = b'{"session_id": "call-1", "name": "echo", "arguments": {"text": "hello"}, "timeout": 30.0}'
"""What the echo is asked: as long as a tool call."""

STRETCH = 50
PLOTTED = {
    "sdk": "SDK alone, no broker",
    "peer": "gateway, HTTP",
    "ours": "mcp-sessions",
    "classic": "AMQP echo",
    "quorum": "AMQP echo, quorum",
}

Call = Callable[[int], Awaitable[Any]]
Busy = Callable[[float, int], Awaitable[Sample]]
"""Calls for so many seconds with so many callers, and tells how long each call took."""


async def measure(options: Options) -> Subject:
    """A trivial tool of a trivial server."""
    sizes = options.sizes
    names = list(named("s", sizes.sessions))
    tool = PLAIN.tool, PLAIN.arguments
    async with AsyncExitStack() as stack:
        echo = await stack.enter_async_context(amqp_echo())
        sdk = await stack.enter_async_context(sdk_client(PLAIN.command))
        stage = await stack.enter_async_context(running({"it": PLAIN.cold}))
        await sdk.list_tools()
        for name in names:
            await stage.client.create(name, "it")
        # Number 0 stands for one session alone, whatever the number.
        one: dict[str, Call] = {
            "sdk": lambda _: sdk.call_tool(*tool),
            "classic": lambda _: echo["classic"].ask(BODY),
            "quorum": lambda _: echo["quorum"].ask(BODY),
            "ours": lambda _: stage.client.call_tool(names[0], *tool),
        }
        call_any: Call = lambda number: stage.client.call_tool(names[number % len(names)], *tool)  # noqa: E731
        # Without the SDK alone: a session is a client there, and nothing is shared that could be measured.
        many: dict[str, Busy] = {
            "classic": partial(for_a_while, one["classic"]),
            "quorum": partial(for_a_while, one["quorum"]),
            "ours": partial(for_a_while, call_any),
        }
        if options.peer is not None:
            peer = await stack.enter_async_context(gateway(options.peer, {"it": PLAIN.command}))
            one["peer"] = lambda _: peer.call("it", names[0], *tool)
            many["peer"] = partial(for_a_while, lambda number: peer.call("it", names[number % len(names)], *tool))
            for name in names:
                await peer.call("it", name, *tool)
            theirs = await stack.enter_async_context(agent(options.peer, peer, "it"))
            many["agent"] = partial(theirs.busy, sessions=names, tool=PLAIN.tool, arguments=PLAIN.arguments)
        trips = {name: timed(call) for name, call in one.items()}
        await in_turns(trips, max(1, sizes.calls // 10))  # warm up
        single = await in_turns(trips, sizes.calls, stretch=STRETCH)
        busy = await _busy(many, options)
        processor = await _processor(stage.workers, call_any, options)
        barest = await _processor([echo["classic"].process], one["classic"], options)
        servers = await _processor(stage.servers(), call_any, options)
    plot = Plot(
        name="tools",
        title="Round trip of a tool call",
        kind="lines",
        x="ms",
        y="percent that are not slower",
        series=[single[key].distribution(name) for key, name in PLOTTED.items() if key in single],
        logarithmic=True,
    )
    callers = f"{sizes.sessions * sizes.callers} callers on {sizes.sessions} sessions"
    figures = [
        figure("one tool call", single["ours"], against=_against(single), target=Target(0, "peer", 0.7)),
        *_figures_of_many(busy, callers),
        figure("processor time of the worker for a call", processor, against={"classic": barest}),
        figure("processor time of the MCP server for a call", servers),
    ]
    return Subject(figures=figures, plots=[plot])


async def _busy(many: dict[str, Busy], options: Options) -> dict[str, tuple[float, Sample]]:
    """Calls a second, and how long each took, when many callers call as fast as they are answered; in turns."""
    sizes = options.sizes
    order = list(many.items())
    each: dict[str, list[float]] = {name: [] for name in many}
    for _ in range(sizes.rounds):
        order.reverse()  # what one leaves behind meets the next
        for name, busy in order:
            each[name] += (await busy(sizes.busy_seconds, sizes.sessions * sizes.callers)).seconds
    callers = sizes.sessions * sizes.callers  # each of them always waits for a call, so (Little's law):
    return {name: (callers / statistics.mean(took), Sample.of(took)) for name, took in each.items()}


async def _processor(processes: list[Any], call: Call, options: Options) -> float:
    """Milliseconds of the processors that these processes use for a call, while many are made."""
    sizes = options.sizes
    before = processor_seconds(processes)
    await shared(call, sizes.calls, sizes.sessions * sizes.callers)
    return (processor_seconds(processes) - before) / sizes.calls * 1000


def _against(found: dict[str, Sample]) -> dict[Reference, Sample | float | None]:
    references: tuple[Reference, ...] = ("sdk", "classic", "quorum", "peer")
    return {name: found.get(name) for name in references}


def _figures_of_many(busy: dict[str, tuple[float, Sample]], callers: str) -> list[Figure]:
    rates: dict[Reference, Sample | float | None] = {}
    durations: dict[Reference, Sample | float | None] = {}
    references: tuple[Reference, ...] = ("classic", "quorum", "peer", "agent")
    for name in references:
        if name in busy:
            rates[name], durations[name] = busy[name]
    rate, each = busy["ours"]
    return [
        figure(f"tool calls, {callers}", rate, unit="/s", against=rates, target=Target(0, "peer", 4, "/s")),
        figure(f"one of them, {callers}", each, against=durations),
    ]
