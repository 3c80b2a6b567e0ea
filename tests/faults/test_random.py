"""Thousands of calls while everything that can fail does; then nothing may be lost, doubled or left behind."""

import asyncio
import contextlib
import itertools
import os
import random
import time
from collections import Counter

import psutil
import pytest

from tests.faults.checker import check
from tests.faults.load import Load
from tests.faults.stage import HEARTBEAT, Stage, faulty

SEED = int(os.environ.get("FAULT_SEED", "0")) or random.randrange(1 << 30)
CALLS = int(os.environ.get("FAULT_CALLS", "5000"))
"""How many calls the long run has at least."""


class Faults:
    """Breaks things, one after the other, and keeps at least one worker that works."""

    def __init__(self, scene: Stage, chance: random.Random, *, hard: bool) -> None:
        self._scene = scene
        self._chance = chance
        self.done: Counter[str] = Counter()
        self.each_once = asyncio.Event()
        self._kinds = ["kill worker", "freeze worker", "kill servers", "restart worker", "add worker"]
        if hard:
            self._kinds += ["stop broker", "kill broker"]

    async def run(self, pause: float) -> None:
        """For ever; each fault is over before the next one comes."""
        bag: list[str] = []
        while True:
            await asyncio.sleep(self._chance.uniform(0.3, 1.0) * pause)
            if not bag:
                bag = self._chance.sample(self._kinds, len(self._kinds))
            kind = bag.pop()
            self.done[kind] += 1
            await getattr(self, f"_{kind.replace(' ', '_')}")()
            self._scene.look()
            if len(self.done) == len(self._kinds):
                self.each_once.set()

    async def _spare(self) -> None:
        while len(self._scene.alive) < 2:
            await self._scene.start()

    async def _kill_worker(self) -> None:
        await self._spare()
        await self._scene.kill_worker(self._chance.choice(self._scene.alive))

    async def _freeze_worker(self) -> None:
        await self._spare()
        worker = self._chance.choice(self._scene.alive)
        self._scene.freeze(worker)
        await asyncio.sleep(self._chance.choice([0.5, HEARTBEAT * 3.5]))
        self._scene.thaw(worker)

    async def _kill_servers(self) -> None:
        self._scene.look()
        servers = [one for one in self._scene.servers.values() if _is_server(one)]
        for process in self._chance.sample(servers, min(5, len(servers))):
            with contextlib.suppress(psutil.NoSuchProcess):  # its session has ended meanwhile
                process.kill()

    async def _restart_worker(self) -> None:
        if len(self._scene.alive) < 4:
            await self._scene.start()
        await self._scene.send_home(self._chance.choice(self._scene.alive))

    async def _add_worker(self) -> None:
        if len(self._scene.alive) < 4:
            await self._scene.start()

    async def _stop_broker(self) -> None:
        await self._scene.break_down("stop_app")
        await asyncio.sleep(self._chance.uniform(0, 5))
        await self._scene.break_down("start_app")

    async def _kill_broker(self) -> None:
        await asyncio.to_thread(self._scene.broker.sync)
        await self._scene.break_down("kill")
        await self._scene.break_down("start")


def _is_server(process: psutil.Process) -> bool:
    try:
        return process.is_running() and "echo_server" in " ".join(process.cmdline())
    except psutil.Error:
        return False


async def storm(scene: Stage, calls: int, *, at_once: int, pace: float, pause: float, hard: bool) -> None:
    print(f"\nFAULT_SEED={SEED}")  # noqa: T201
    chance = random.Random(SEED)
    configuration = faulty(session={"default_timeout": 120})
    for _ in range(2):
        await scene.start(configuration)
    load, faults = Load(scene, chance, pace=pace), Faults(scene, chance, hard=hard)
    began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:  # a fault that could not be done ends the run
            breaking = group.create_task(faults.run(pause), name="faults")
            await load.run(calls, at_once=at_once)
            for round_ in itertools.count(1):  # what commands open is not counted, nor what a broken broker refused
                missing = calls - len(scene.accepted)
                if missing <= 0 and faults.each_once.is_set():
                    break
                await load.run(max(missing, at_once), at_once=at_once, name=f"more-{round_}")
            breaking.cancel()
    finally:
        for worker in scene.alive:
            scene.thaw(worker)
        if hard:
            await scene.break_down("start")
            await scene.break_down("start_app")
    took = time.monotonic() - began
    print(f"{len(scene.accepted)} calls in {took:.0f} s, {dict(faults.done)}, uses {dict(load.outcomes)}")  # noqa: T201
    await asyncio.gather(*(scene.publish(call, "ended") for call in sorted(scene.accepted - scene.ended)))
    await check(scene, "random faults")


@pytest.mark.timeout(300)
async def test_calls_under_random_faults_each_of_which_comes(scene: Stage):
    await storm(scene, 75, at_once=15, pace=1.5, pause=0.5, hard=False)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_thousands_of_calls_under_random_faults(scene: Stage):
    await storm(scene, CALLS, at_once=40, pace=2.5, pause=4, hard=True)
