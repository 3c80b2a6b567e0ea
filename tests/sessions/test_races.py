"""Everything at once, in an order that a seed decides: each session that was created ends exactly once."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumer.sessions import Session, SessionCreated, SessionEnded, SessionLimits, SessionManager
from schemas.errors import LimitReached, SessionExists, ShuttingDown
from schemas.events import EndReason
from schemas.ids import ServiceName

from .processes import Child, Events, sid

IDS = [sid(f"call-{number}") for number in range(4)]
SERVICES = [ServiceName("todo"), ServiceName("notes")]
EXPECTED = (LimitReached, SessionExists, ShuttingDown, TimeoutError, ConnectionError)


class Storm:
    """Forty operations on four ids, each begun some turns of the event loop after the one before."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.events = Events()
        limits = SessionLimits(
            max_total_sessions=3, max_sessions_per_service=2, cleanup_interval=0.02, max_lifetime=0.03
        )
        self.manager = SessionManager[Child](limits, on_event=self.events)
        self.children: list[Child] = []
        self.closed = 0

    async def start(self) -> Child:
        for _ in range(self.chance.randrange(3)):
            await asyncio.sleep(0)
        if self.chance.random() < 0.1:
            raise ConnectionError("did not start")
        child = await Child.start()
        self.children.append(child)
        return child

    async def open(self, **options: Any) -> None:
        pick = self.chance.choice
        timeout, age = pick([0.001, 0.01, 0.05, 60]), timedelta(seconds=pick([0, 0, 0, 0.025, 1]))
        await self.manager.open_session(
            pick(IDS), pick(SERVICES), self.start, timeout, created_at=datetime.now(UTC) - age, **options
        )

    async def replace(self) -> None:
        await self.open(if_exists="replace")

    async def keep(self) -> None:
        await self.open(if_exists="keep")

    async def reject(self) -> None:
        await self.open(if_exists="reject")

    async def open_and_give_up(self) -> None:
        async with asyncio.timeout(self.chance.choice([0, 0.001, 0.003, 0.006])):
            await self.open()

    async def take_over(self) -> None:
        child = await Child.start()
        self.children.append(child)
        try:
            await self.manager.create_session(self.chance.choice(IDS), self.chance.choice(SERVICES), child)
        except (LimitReached, ShuttingDown):
            await child.stop()

    async def close(self) -> None:
        if await self.manager.close_session(self.chance.choice(IDS), EndReason.CALL_ENDED):
            self.closed += 1

    async def kill(self) -> None:
        if session := self.manager.peek(self.chance.choice(IDS)):
            with session.in_use():
                try:
                    session.process.process.kill()
                except ProcessLookupError:
                    return
                await session.wait_ended()

    async def use(self) -> None:
        if session := self.manager.get_session(self.chance.choice(IDS)):
            with session.in_use():
                await session.process.ask("hello")

    async def run(self) -> list[object]:
        operations = [self.replace, self.keep, self.reject, self.open_and_give_up, self.take_over, self.close]
        operations += [self.close, self.kill, self.use]
        running = []
        for _ in range(40):
            running.append(asyncio.create_task(self.chance.choice(operations)()))
            for _ in range(self.chance.choice([0, 0, 1, 5, 30])):
                await asyncio.sleep(0)
            self.counts_are_true()
        if self.chance.random() < 0.7:
            await asyncio.wait(running)
        await self.manager.shutdown()
        return await asyncio.gather(*running, return_exceptions=True)

    def counts_are_true(self) -> None:
        table = Counter(session.service_name for session in self.manager.sessions.values())
        assert len(self.manager.sessions) + self.manager.opening == self.manager.count() <= 3
        for service_name in SERVICES:
            assert table[service_name] <= self.manager.count(service_name) <= 2


@pytest.mark.parametrize("seed", range(40))
async def test_each_created_session_ends_exactly_once_and_nothing_is_left(seed: int) -> None:
    storm = Storm(seed)
    async with asyncio.timeout(45):
        outcomes = await storm.run()
    strange = [outcome for outcome in outcomes if outcome is not None and not isinstance(outcome, EXPECTED)]
    assert not strange

    open_now: dict[str, Session[Child]] = {}
    for event in storm.events:
        if isinstance(event, SessionCreated):
            assert event.session.session_id not in open_now, "created over a session that has not ended"
            open_now[event.session.session_id] = event.session
        else:
            assert open_now.pop(event.session.session_id) is event.session
            assert event.reason is event.session.end_reason
    assert not open_now

    reasons = Counter(event.reason for event in storm.events if isinstance(event, SessionEnded))
    assert reasons[EndReason.CALL_ENDED] == storm.closed
    manager = storm.manager
    assert manager.count() == manager.opening == len(manager.sessions) == 0
    assert len(manager._turns) == len(manager._stops) == len(manager._expiry._deadlines) == len(manager._dying) == 0
    assert [(child.is_alive, child.stops) for child in storm.children] == [(False, 1)] * len(storm.children)
