"""Many starts and many ends at once, also of a server that has to be killed."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from scripts.benchmarks.measuring import at_once
from scripts.benchmarks.options import Options
from scripts.benchmarks.peer import PeerGateway, gateway
from scripts.benchmarks.report import Figure, Sample, Subject, Target, figure
from scripts.benchmarks.servers import PLAIN
from scripts.benchmarks.stage import Stage, running

STUBBORN = [*PLAIN.command, "--ignore-eof"]
KINDS = {
    "cold": "standard library, cold",
    "forked": "standard library, forked",
    "warm": "standard library, warm",
    "stubborn": "a server that ignores the end of its input",
}
PEERS = {"cold": "cold", "forked": "cold", "warm": "cold", "stubborn": "stubborn"}
"""The gateway starts every server in one way."""

Each = Callable[[int], Awaitable[Any]]


async def measure(options: Options) -> Subject:
    """Sessions opened and closed as fast as they go; a close is answered when the process has gone, here and there."""
    many = options.sizes.burst
    services = {
        "cold": PLAIN.cold,
        "forked": PLAIN.forked,
        "warm": PLAIN.warm(many),
        "stubborn": {"command": STUBBORN},
    }
    opened: dict[str, list[float]] = {}
    closed: dict[str, list[float]] = {}

    async def burst(kind: str, opening: Each, closing: Each) -> None:
        opened.setdefault(kind, []).append(await at_once(opening, many))
        closed.setdefault(kind, []).append(await at_once(closing, many))

    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(running(services))
        peer = None
        if options.peer is not None:
            commands = {"cold": PLAIN.command, "stubborn": STUBBORN}
            peer = await stack.enter_async_context(gateway(options.peer, commands))
        for service in services:
            await stage.client.create("first", service)
            await stage.client.close("first")
        for _ in range(options.sizes.rounds):
            for kind in services:
                await stage.warm("warm", many)
                await burst(kind, partial(_open, stage, kind), partial(_close, stage, kind))
            if peer is not None:
                await stage.warm("warm", many)
                for kind in ("cold", "stubborn"):
                    await burst(f"peer {kind}", partial(_first_call, peer, kind), partial(_close_theirs, peer, kind))
    return Subject(figures=[*_creates(opened, many), *_closes(closed, many)])


async def _open(stage: Stage, kind: str, number: int) -> None:
    await stage.client.create(f"{kind}-{number}", kind)


async def _close(stage: Stage, kind: str, number: int) -> None:
    await stage.client.close(f"{kind}-{number}")


async def _first_call(peer: PeerGateway, kind: str, number: int) -> None:
    await peer.call(kind, f"{kind}-{number}", PLAIN.tool, PLAIN.arguments)


async def _close_theirs(peer: PeerGateway, kind: str, number: int) -> None:
    await peer.close(f"{kind}-{number}")


def _creates(opened: dict[str, list[float]], many: int) -> list[Figure]:
    def rate(kind: str) -> float | None:
        return many * 1000 / Sample.of(opened[kind]).median if kind in opened else None

    theirs = rate("peer cold")
    return [
        figure(
            f"{many} creates at once, {name}",
            rate(kind) or 0.0,
            unit="/s",
            against={"peer": theirs},
            target=Target(0, "peer", 4, unit="/s") if kind in {"cold", "forked"} else None,
        )
        for kind, name in KINDS.items()
        if kind != "stubborn"
    ]


def _closes(closed: dict[str, list[float]], many: int) -> list[Figure]:
    return [
        figure(
            f"{many} closes at once, {name}",
            Sample.of(closed[kind]).median,
            against={"peer": Sample.of(theirs).median if (theirs := closed.get(f"peer {PEERS[kind]}")) else None},
            target=Target(0, "peer", 1 / 20),
        )
        for kind, name in KINDS.items()
        if kind != "warm"
    ]
