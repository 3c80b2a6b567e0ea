"""Tool calls: one round trip, and many over many sessions, beside bare round trips over the same broker."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from scripts.benchmarks.measuring import Busy, busy_in_turns, for_a_while, in_turns, processor_of, timed
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
        at_once = sizes.sessions * sizes.callers
        busy = await busy_in_turns(many, sizes.busy_seconds, at_once, rounds=sizes.rounds)
        processor = await processor_of(stage.workers, call_any, sizes.calls, at_once)
        barest = await processor_of([echo["classic"].process], one["classic"], sizes.calls, at_once)
        servers = await processor_of(stage.servers(), call_any, sizes.calls, at_once)
    plot = Plot(
        name="tools",
        title="Round trip of a tool call",
        kind="lines",
        x="ms",
        y="percent that are not slower",
        series=[single[key].distribution(name) for key, name in PLOTTED.items() if key in single],
        logarithmic=True,
    )
    callers = f"{at_once} callers on {sizes.sessions} sessions"
    figures = [
        figure("one tool call", single["ours"], against=_against(single), target=Target(0, "peer", 0.7)),
        *_figures_of_many(busy, callers),
        figure("processor time of the worker for a call", processor, against={"classic": barest}),
        figure("processor time of the MCP server for a call", servers),
    ]
    return Subject(figures=figures, plots=[plot])


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
