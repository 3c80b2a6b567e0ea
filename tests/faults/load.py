"""Load: calls that come, are used and end, as telephony backends and agents would have it, whatever happens."""

import asyncio
import random
from collections import Counter
from contextlib import suppress

from schemas.errors import SessionsError
from tests.faults.stage import Stage

POISON = (b"{", b"[]", b"\xff\xfe", b'{"unheard_of": true}', b"")


class Load:
    """Random lives of calls; every start is followed by an end, sooner or later."""

    def __init__(self, scene: Stage, chance: random.Random, *, pace: float) -> None:
        self._scene = scene
        self._chance = chance
        self._pace = pace
        """How long (s) a call lasts, about."""
        self.outcomes: Counter[str] = Counter()

    async def run(self, count: int, *, at_once: int, name: str = "call") -> None:
        """``count`` calls, ``at_once`` of them at a time."""
        room = asyncio.Semaphore(at_once)

        async def one(number: int) -> None:
            async with room:
                await self._live(f"{name}-{number}")

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(one(number))

    async def _live(self, call: str) -> None:
        scene, chance = self._scene, self._chance
        style = chance.choice(["plain", "plain", "used", "used", "busy", "dying", "impatient", "commanded", "poison"])
        if style == "commanded":
            await self._commanded(call)
            return
        await scene.publish(call, "started")
        match style:
            case "impatient":
                pass
            case "used" | "busy":
                if style == "used":
                    await self._begun(call)
                for _ in range(chance.randrange(1, 8)):
                    await self._use(call, "counter", None)  # no two executions have the same answer
                    await asyncio.sleep(chance.random() * self._pace * (0.5 if style == "used" else 0.05))
            case "dying":
                await self._begun(call)
                await self._use(call, "die", {"code": 3})
            case "poison":
                await scene.send_poison([(scene.names.calls, "", None, chance.choice(POISON))])
            case _:
                await asyncio.sleep(chance.random() * self._pace * 2)
        if chance.random() < 0.2:
            await scene.publish(call, "progress")
        await scene.publish(call, "ended")
        if chance.random() < 0.2:
            await scene.publish(call, "ended")

    async def _commanded(self, call: str) -> None:
        """A session that a command opens and a command closes; the call's end comes as well, in case they failed."""
        self._scene.accepted.discard(call)
        with suppress(SessionsError):
            await self._scene.client.create(call, "echo", timeout=120, reply_timeout=10)
        await self._use(call, "counter", None)
        with suppress(SessionsError):
            await self._scene.client.close(call)
        await self._scene.publish(call, "ended")

    async def _begun(self, call: str) -> None:
        """Wait for the session, as an agent that greets its caller does; not for ever, since some are rejected."""
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                await self._scene.log.began[call].wait()

    async def _use(self, call: str, tool: str, arguments: dict | None) -> None:
        answer = await self._scene.try_tool(call, tool, arguments, timeout=3)
        self.outcomes[type(answer).__name__ if isinstance(answer, Exception) else "answered"] += 1
