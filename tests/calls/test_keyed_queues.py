"""Keyed queues: one after the other for a key, all keys at once."""

import asyncio
import gc

import pytest

from consumer.concurrency.expiring_dict import ExpiringDict
from consumer.concurrency.keyed_queues import KeyedQueues


@pytest.fixture
async def lanes():
    made = KeyedQueues("test")
    yield made
    await made.abandon()


async def test_one_key_keeps_its_order_while_others_run(lanes):
    done: list[str] = []
    gate, started = asyncio.Event(), asyncio.Event()

    async def slow():
        started.set()
        await gate.wait()
        done.append("a1")

    async def quick(what):
        done.append(what)

    lanes.submit("a", slow)
    lanes.submit("a", lambda: quick("a2"))
    lanes.submit("b", lambda: quick("b1"))
    await started.wait()
    await lanes.turn("b")
    assert done == ["b1"]
    gate.set()
    await lanes.turn("a")
    assert done == ["b1", "a1", "a2"]
    assert await lanes.drain(1)
    assert len(lanes) == 0


async def test_a_defect_does_not_stop_a_lane(lanes):
    ran = asyncio.Event()

    async def broken():
        raise ZeroDivisionError

    async def works():
        ran.set()

    lanes.submit("a", broken)
    lanes.submit("a", works)
    async with asyncio.timeout(45):
        await ran.wait()


async def test_what_waits_is_known_by_its_tag(lanes):
    gate = asyncio.Event()
    lanes.submit("a", gate.wait, tag="first")
    await asyncio.sleep(0)
    lanes.submit("a", gate.wait, tag="second")
    assert lanes.waiting("a") == {"second"}
    assert lanes.waiting("b") == set()
    assert lanes.busy("a")
    gate.set()


async def test_a_turn_on_an_idle_lane_costs_nothing(lanes):
    await lanes.turn("nobody")
    assert not lanes.busy("nobody")


async def test_drain_gives_up_in_time_and_abandon_leaves_nothing(lanes):
    lanes.submit("a", asyncio.Event().wait)
    lanes.submit("a", asyncio.Event().wait)
    assert not await lanes.drain(0.01)
    await lanes.abandon()
    assert len(lanes) == 0
    gc.collect()


async def test_a_turn_that_is_abandoned_does_not_wait_for_ever(lanes):
    lanes.submit("a", asyncio.Event().wait)
    waiting = asyncio.create_task(lanes.turn("a"))
    await asyncio.sleep(0)
    await lanes.abandon()
    done, _ = await asyncio.wait({waiting}, timeout=5)
    assert waiting in done
    assert waiting.cancelled()


async def test_memory_forgets_in_time():
    memory: ExpiringDict[int] = ExpiringDict(0.02)
    memory.set("a", 1)
    memory.set("b", 2)
    assert memory.get("a") == 1
    memory.drop("b")
    assert memory.get("b") is None
    async with asyncio.timeout(45):
        while memory.get("a") is not None:
            await asyncio.sleep(0.005)
    memory.set("a", 3)
    memory.clear()
    assert memory.get("a") is None
