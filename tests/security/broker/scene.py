"""Live calls beside which something is tried, and what has become of them afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from consumer.client import SessionClient
from schemas.events import CloudEvent
from tests.harness import Cluster

DISTURBANCE = 0.1
"""How much longer (s) a tool call may take beside an attack than the slowest did without one."""

ROUNDS = 3
"""A machine that is busy with something else delays a call now and then; an attack that does, does it every time."""

PULSE = 0.02


@dataclass(slots=True)
class Pulse:
    """How long (s) tool calls on live calls took."""

    took: list[float] = field(default_factory=list)

    @property
    def worst(self) -> float:
        return max(self.took, default=0.0)


@dataclass(slots=True)
class State:
    """What can be seen from outside, before and after."""

    sessions: dict[str, tuple[Any, ...]]
    """Of each live call: its worker, since when, its service."""
    events: list[CloudEvent]


class Scene:
    """Workers with live calls, a publisher and a client with the rights of their roles."""

    def __init__(self, mcp: Cluster, publisher: SessionClient, client: SessionClient) -> None:
        self.mcp = mcp
        self.publisher = publisher
        self.client = client
        self.calls: list[str] = []

    async def live(self, count: int) -> None:
        """Have so many calls, each with a session."""
        calls = [f"live-{number}" for number in range(count)]
        for call in calls:
            await self.publisher.publish_call_event({"call_id": call, "kind": "started"})
        for call in calls:
            await self.mcp.event("created", call_id=call, within=60)
        self.calls = calls

    async def state(self) -> State:
        listed = (await self.client.list_sessions()).sessions
        kept = {name: (one.worker_id, str(one.created_at), one.service_name) for name, one in listed.items()}
        return State(kept, [one for one in self.mcp.events if one.data.get("call_id") in self.calls])

    @asynccontextmanager
    async def pulse(self) -> AsyncIterator[Pulse]:
        """Tool calls on live calls, one after the other, for as long as this is."""
        pulse = Pulse()

        async def beat() -> None:
            turn = 0
            while True:
                call = self.calls[turn % len(self.calls)]
                turn += 1
                began = time.monotonic()
                answer = await self.client.call_tool(call, "echo", {"text": call})
                pulse.took.append(time.monotonic() - began)
                assert answer.text == call
                await asyncio.sleep(PULSE)

        beating = asyncio.create_task(beat(), name="pulse")
        try:
            yield pulse
        finally:
            if not beating.done():
                beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating  # a call that was not answered fails here

    async def undisturbed(self, attack: Callable[[], Awaitable[Any]], *, besides: frozenset[str] = frozenset()) -> None:
        """See that an attack loses no session, tells nothing of the live calls and delays none of them.

        ``besides`` are sessions that the attack may have opened by right.
        """
        before = await self.state()
        async with self.pulse() as quiet:
            await asyncio.sleep(0.5)
        worst = []
        for _ in range(ROUNDS):
            async with self.pulse() as beside:
                await attack()
                await asyncio.sleep(2 * PULSE)
            worst.append(beside.worst - quiet.worst)
            if worst[-1] <= DISTURBANCE:
                break
        print(f"\n{len(beside.took)} tool calls beside it, {min(worst) * 1000:+.0f} ms against the slowest before")  # noqa: T201
        after = await self.state()
        kept, had = ({n: one for n, one in state.sessions.items() if n not in besides} for state in (after, before))
        assert kept == had
        assert after.events == before.events, "something was told of a live call"
        assert min(worst) <= DISTURBANCE, f"live calls were delayed by {worst} s"

    def memory(self) -> int:
        """Bytes that the workers have, without the servers of their sessions."""
        return sum(psutil.Process(worker.process.pid).memory_info().rss for worker in self.mcp.workers)

    def dead_letters(self) -> list[dict[str, Any]]:
        return self.mcp.logged("delivery", outcome="dead_lettered")
