"""Starts of sessions: by the command, forked, and from the warm pool."""

from contextlib import AsyncExitStack
from functools import partial

from scripts.benchmarks.measuring import Timed, duration, in_turns, shared, shared_kb
from scripts.benchmarks.options import Options
from scripts.benchmarks.peer import PeerGateway, gateway
from scripts.benchmarks.references import sdk_start
from scripts.benchmarks.report import Figure, Plot, Reference, Sample, Series, Subject, Target, figure
from scripts.benchmarks.servers import MeasuredServer
from scripts.benchmarks.stage import Stage, named, running

KINDS = ("cold", "forked", "warm")
KEPT = 10
"""Sessions that are open when their memory is looked at."""


async def measure(options: Options) -> Subject:
    """Each server, each way."""
    figures: list[Figure] = []
    notes: list[str] = []
    for server in options.servers:
        figures += await _one_server(server, options, notes)
    return Subject(figures=figures, plots=[_plot(options, figures)], notes=notes)


def _plot(options: Options, figures: list[Figure]) -> Plot:
    by_name = {figure.what: figure for figure in figures}
    names = [server.name for server in options.servers]
    references: dict[str, Reference] = {"gateway's first call": "peer", "SDK alone": "sdk"}
    bars = [
        Series(name=label, points=[(name, by_name[f"{name}, cold"].against[key]) for name in names])
        for label, key in references.items()
        if all(key in by_name[f"{name}, cold"].against for name in names)
    ]
    bars += [Series(name=kind, points=[(name, by_name[f"{name}, {kind}"].value) for name in names]) for kind in KINDS]
    return Plot(
        name="starts", title="Until a session is open", kind="bars", x="", y="ms", series=bars, logarithmic=True
    )


async def _one_server(server: MeasuredServer, options: Options, notes: list[str]) -> list[Figure]:
    sizes = options.sizes
    times = sizes.starts
    services = {"cold": server.cold, "forked": server.forked, "warm": server.warm(sizes.pool)}
    async with running(services) as stage, AsyncExitStack() as stack:
        ways: dict[str, Timed] = {"sdk": lambda _: sdk_start(server.command)}
        ways |= {kind: partial(_opened, stage, kind) for kind in KINDS}
        if options.peer is not None:
            peer = await stack.enter_async_context(gateway(options.peer, {"it": server.command}))
            ways["peer"] = partial(_first_call, peer, server)
        for way in ways.values():
            await way(-1)  # what is found out about a server once
        found = await in_turns({name: _settled(stage, sizes.pool, way) for name, way in ways.items()}, times)
        took, _ = await shared(lambda number: _opened(stage, "forked", times + number), sizes.sustained, 4)
        memory = {kind: await _memory(stage, server, kind, min(KEPT, times)) for kind in ("cold", "forked")}
        really = {kind: await _how(stage, kind) for kind in KINDS}
        notes += [f"{server.name}, {kind}: its starts were {how}." for kind, how in really.items() if how != kind]
    against: dict[Reference, Sample | float | None] = {"sdk": found["sdk"], "peer": found.get("peer")}
    one_by_one = {name: 1000 / one.median for name, one in against.items() if isinstance(one, Sample)}
    foreign = server.name == "mcp-server-time"
    return [
        figure(f"{server.name}, cold", found["cold"], against=against, target=Target(10, "sdk")),
        figure(f"{server.name}, forked", found["forked"], against=against, target=Target(50) if foreign else None),
        figure(f"{server.name}, warm", found["warm"], against=against, target=Target(15)),
        figure(
            f"{server.name}, forked, opened and closed in a row",
            sizes.sustained / took,
            unit="/s",
            against=one_by_one,
            target=Target(25, unit="/s") if foreign else None,
        ),
        figure(f"{server.name}, memory of a session, cold", memory["cold"], unit="MB"),
        figure(f"{server.name}, memory of a session, forked", memory["forked"], unit="MB"),
    ]


def _settled(stage: Stage, pool: int, way: Timed) -> Timed:
    """The same, begun when the pool is full and nothing is started ahead any more."""

    async def begun(number: int) -> float:
        await stage.warm("warm", pool)
        return await way(number)

    return begun


async def _opened(stage: Stage, service: str, number: int) -> float:
    """How long ``session.create`` takes; its end is awaited and does not count."""
    name = f"{service}-{number}"
    took = await duration(stage.client.create(name, service))
    await stage.client.close(name)
    return took


async def _first_call(peer: PeerGateway, server: MeasuredServer, number: int) -> float:
    """The same there: the first call of a session starts its server."""
    took = await duration(peer.call("it", f"first-{number}", server.tool, server.arguments))
    await peer.close(f"first-{number}")
    return took


async def _how(stage: Stage, service: str) -> str:
    """How the last session of a service was started."""
    return next(
        str(event.data.get("tools", {}).get("start"))
        for (what, _), event in reversed(stage.told.items())
        if what == "closed" and event.data["service_name"] == service
    )


async def _memory(stage: Stage, server: MeasuredServer, service: str, count: int) -> float:
    """Megabytes (PSS) of each of so many sessions that have answered a call."""
    names = list(named(f"memory-{service}", count))
    before = {process.pid for process in stage.servers()}
    for name in names:
        await stage.client.create(name, service)
        await stage.client.call_tool(name, server.tool, server.arguments)
    own = [process for process in stage.servers() if process.pid not in before]
    found = shared_kb(own) / count / 1000
    for name in names:
        await stage.client.close(name)
    return found
