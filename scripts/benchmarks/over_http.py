"""Our gateway over HTTP, in a worker's process and as one of its own, beside SignalWire's, asked in the same way."""

import hashlib
import hmac
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

import consumer.demo
from scripts.benchmarks import peer
from scripts.benchmarks.http_client import Http, KeptConnection, Response, free_port, tool_call
from scripts.benchmarks.measuring import Timed, busy_in_turns, for_a_while, in_turns, processor_of, timed, until
from scripts.benchmarks.options import Options
from scripts.benchmarks.references import amqp_echo
from scripts.benchmarks.report import Figure, Plot, Reference, Sample, Subject, Target, figure
from scripts.benchmarks.servers import PLAIN
from scripts.benchmarks.stage import named, running

OWN, APART = "worker --gateway", "gateway and worker"
PEER = "SignalWire's gateway"
SERVICE = "it"
USER = "bench"
READY = 60.0
STRETCH = 50

ENDED = json.loads((Path(consumer.demo.__file__).parent / "events" / "swml_ended.json").read_text())
"""What SignalWire says at the end of a call. Of a call that nobody had it starts nothing beside what is measured."""

VERSION = "2025-11-25"
"""The revision of MCP that is spoken: the last one with sessions, which clients of voice agents have."""

Call = Callable[[int], Awaitable[Any]]


@dataclass(frozen=True)
class Served:
    """A gateway of ours, and the processes that answer behind it."""

    http: Http
    key: str
    """What its webhooks are signed with."""
    processes: list[psutil.Process]

    async def webhook(self, _: int) -> None:
        """Say that a call has ended, and wait until the gateway says that RabbitMQ has it."""
        told = ENDED | {"params": ENDED["params"] | {"call_id": secrets.token_hex(16)}}
        body, path = json.dumps(told).encode(), "/signalwire/events"
        signature = hmac.new(self.key.encode(), f"{self.http.url}{path}".encode() + body, hashlib.sha256).hexdigest()
        await self.http.request("POST", path, body, {"X-SignalWire-Sha256-Signature": signature})


async def measure(options: Options) -> Subject:
    """Tool calls, webhooks and MCP through gateways."""
    sizes = options.sizes
    names = list(named("s", sizes.sessions))
    at_once = sizes.sessions * sizes.callers
    callers = f"{at_once} callers on {sizes.sessions} sessions"
    async with AsyncExitStack() as stack:
        echo = await stack.enter_async_context(amqp_echo())
        ours = {
            OWN: await stack.enter_async_context(_in_the_worker()),
            APART: await stack.enter_async_context(_apart()),
        }
        asked = {way: served.http for way, served in ours.items()}
        if options.peer is not None:
            theirs = await stack.enter_async_context(peer.gateway(options.peer, {SERVICE: PLAIN.command}))
            asked[PEER] = theirs.http
        await _open(asked, names)
        one = {way: timed(partial(_call, http, names[:1])) for way, http in asked.items()}
        single = await _warm_in_turns(one, sizes.calls)
        many = {way: partial(for_a_while, partial(_call, http, names)) for way, http in asked.items()}
        busy = await busy_in_turns(many, sizes.busy_seconds, at_once, rounds=sizes.rounds)
        processor = {
            way: await processor_of(served.processes, partial(_call, served.http, names), sizes.calls, at_once)
            for way, served in ours.items()
        }
        hooks = {way: timed(served.webhook) for way, served in ours.items()}
        quorum = timed(lambda _: echo["quorum"].ask(json.dumps(ENDED).encode()))
        told = await _warm_in_turns({**hooks, "quorum": quorum}, sizes.calls)
        spoken = {way: await _rest_and_mcp(served.http, names[0], sizes.calls) for way, served in ours.items()}
    rate = f"tool calls, {callers}"
    figures = [
        figure(f"one tool call, {OWN}", single[OWN], against=_beside(single), target=Target(0, "peer", 0.7)),
        figure(f"one tool call, {APART}", single[APART], against=_beside(single), target=Target(0, "peer", 1.8)),
        *_rates(rate, busy),
        *(figure(f"one of them, {way}", busy[way][1], against=_beside(_durations(busy))) for way in ours),
        *(figure(f"processor time of ours for a call, {way}", processor[way]) for way in ours),
        *(
            figure(f"a webhook confirmed, {way}", told[way], against={"quorum": told["quorum"]}, target=Target(5))
            for way in ours
        ),
        *(
            figure(
                f"a tool call over MCP, connection kept, {way}",
                spoken[way]["mcp"],
                against={"rest": spoken[way]["rest"]},
                target=Target(0, "rest", 1.25),
            )
            for way in ours
        ),
    ]
    plot = Plot(
        name="http",
        title="Round trip of a tool call over HTTP, each with a connection of its own",
        kind="lines",
        x="ms",
        y="percent that are not slower",
        series=[found.distribution(way) for way, found in single.items()],
        logarithmic=True,
    )
    return Subject(figures=figures, plots=[plot])


@asynccontextmanager
async def _in_the_worker() -> AsyncIterator[Served]:
    """``worker --gateway``: one process has the HTTP and the calls."""
    http, key, section = _settings()
    async with running({SERVICE: PLAIN.cold}, options=("--gateway",), gateway=section) as stage:
        await _ready(http)
        yield Served(http, key, stage.workers)


@asynccontextmanager
async def _apart() -> AsyncIterator[Served]:
    """``gateway``, which asks a worker over the broker."""
    http, key, section = _settings()
    async with running({SERVICE: PLAIN.cold}) as stage:
        process = await stage.serve({"services": {SERVICE: PLAIN.cold}, "gateway": section})
        await _ready(http)
        yield Served(http, key, [*stage.workers, process])


def _settings() -> tuple[Http, str, dict[str, Any]]:
    port, password, key = free_port(), secrets.token_hex(8), secrets.token_hex(16)
    section = {"port": port, "auth_user": USER, "auth_password": password, "signing_keys": [key]}
    return Http(port, USER, password), key, section


async def _ready(http: Http) -> None:
    await until(partial(http.answers, "/readyz"), "gateway that reaches a worker", within=READY, pause=0.1)


async def _open(asked: dict[str, Http], names: list[str]) -> None:
    """Open every session everywhere, by a call whose answer has to be the same from all gateways."""
    for number, name in enumerate(names):
        said = {way: (await _call(http, names, number)).json() for way, http in asked.items()}
        if any(one != said[OWN] for one in said.values()):
            raise RuntimeError(f"the gateways answer a call of {name} differently: {said}")


async def _call(http: Http, names: list[str], number: int) -> Response:
    """Call a tool as SignalWire's agents do, with a connection of its own."""
    body = tool_call(names[number % len(names)], PLAIN.tool, PLAIN.arguments)
    return await http.request("POST", f"/services/{SERVICE}/call", body)


async def _warm_in_turns(calls: Mapping[str, Timed], times: int) -> dict[str, Sample]:
    await in_turns(calls, max(1, times // 10))
    return await in_turns(calls, times, stretch=STRETCH)


async def _rest_and_mcp(http: Http, session: str, times: int) -> dict[str, Sample]:
    """The same tool call over REST and over MCP, each on a connection that is kept."""
    body = tool_call(session, PLAIN.tool, PLAIN.arguments)
    async with http.connection() as rest, http.connection() as mcp:
        call_over_mcp = await _mcp_session(mcp, f"/calls/{session}/{SERVICE}/mcp")
        call_over_rest: Call = lambda _: rest.request("POST", f"/services/{SERVICE}/call", body)  # noqa: E731
        return await _warm_in_turns({"rest": timed(call_over_rest), "mcp": timed(call_over_mcp)}, times)


async def _mcp_session(connection: KeptConnection, path: str) -> Call:
    """Open an MCP session; returns what calls the tool through it, and takes JSON for an answer."""
    ids = itertools.count(1)
    headers = {"Accept": "application/json"}

    async def ask(method: str, params: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
        asked = {"jsonrpc": "2.0", "id": next(ids), "method": method, "params": params}
        answer = await connection.request("POST", path, json.dumps(asked).encode(), headers)
        said = answer.json()
        if "error" in said or said["result"].get("isError"):
            raise RuntimeError(f"{method} over MCP is answered with {said}")
        return answer.headers, said

    client = {"name": "bench", "version": "1"}
    told, _ = await ask("initialize", {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": client})
    headers |= {"Mcp-Session-Id": told["mcp-session-id"], "MCP-Protocol-Version": VERSION}
    initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    await connection.request("POST", path, json.dumps(initialized).encode(), headers)
    return lambda _: ask("tools/call", {"name": PLAIN.tool, "arguments": PLAIN.arguments})


def _beside(found: dict[str, Sample]) -> dict[Reference, Sample | float | None]:
    return {"peer": found.get(PEER)}


def _durations(busy: dict[str, tuple[float, Sample]]) -> dict[str, Sample]:
    return {way: took for way, (_, took) in busy.items()}


def _rates(what: str, busy: dict[str, tuple[float, Sample]]) -> list[Figure]:
    theirs: dict[Reference, Sample | float | None] = {"peer": busy[PEER][0] if PEER in busy else None}
    targets = {OWN: Target(0, "peer", 2.5, "/s"), APART: None}
    return [
        figure(f"{what}, {way}", busy[way][0], unit="/s", against=theirs, target=target)
        for way, target in targets.items()
    ]
