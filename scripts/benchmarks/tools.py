"""Tool calls: one round trip, and many over many sessions, beside bare round trips over the same broker."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from scripts.benchmarks.measuring import in_turns, processor_seconds, shared, timed
from scripts.benchmarks.options import Options
from scripts.benchmarks.peer import gateway
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
        many = one | {"ours": lambda number: stage.client.call_tool(names[number % len(names)], *tool)}
        del many["sdk"]  # a session is a client there: nothing is shared that could be measured
        if options.peer is not None:
            peer = await stack.enter_async_context(gateway(options.peer, {"it": PLAIN.command}))
            one["peer"] = lambda _: peer.call("it", names[0], *tool)
            many["peer"] = lambda number: peer.call("it", names[number % len(names)], *tool)
            for number in range(len(names)):
                await many["peer"](number)
        trips = {name: timed(call) for name, call in one.items()}
        await in_turns(trips, max(1, sizes.calls // 10))  # warm up
        single = await in_turns(trips, sizes.calls, stretch=STRETCH)
        busy = await _busy(many, options)
        processor = await _processor(stage.workers, many["ours"], options)
        theirs = await _processor([echo["classic"].process], many["classic"], options)
        servers = await _processor(stage.servers(), many["ours"], options)
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
        figure("processor time of the worker for a call", processor, against={"classic": theirs}),
        figure("processor time of the MCP server for a call", servers),
    ]
    return Subject(figures=figures, plots=[plot])


async def _busy(many: dict[str, Call], options: Options) -> dict[str, tuple[float, Sample]]:
    """Calls a second, and how long each took, when many callers call as fast as they are answered; in turns."""
    sizes = options.sizes
    took = dict.fromkeys(many, 0.0)
    each: dict[str, list[float]] = {name: [] for name in many}
    for _ in range(sizes.rounds):
        for name, call in many.items():
            whole, sample = await shared(call, sizes.calls, sizes.sessions * sizes.callers)
            took[name] += whole
            each[name] += sample.seconds
    return {name: (sizes.rounds * sizes.calls / took[name], Sample.of(each[name])) for name in many}


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
    references: tuple[Reference, ...] = ("classic", "quorum", "peer")
    for name in references:
        if name in busy:
            rates[name], durations[name] = busy[name]
    rate, each = busy["ours"]
    return [
        figure(f"tool calls, {callers}", rate, unit="/s", against=rates, target=Target(0, "peer", 4, "/s")),
        figure(f"one of them, {callers}", each, against=durations),
    ]
