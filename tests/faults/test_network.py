"""The way to the broker: cut, slow, and black holes."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiomisc.pytest import TCPProxy

from consumer.broker.link import Link
from consumer.broker.message import Delivery
from tests.faults.checker import check
from tests.faults.load import Load
from tests.faults.stage import Stage, faulty
from tests.harness import WorkerProcess, worker_id_of
from tests.proxy import proxy_to, through

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def proxy(own_broker) -> AsyncIterator[TCPProxy]:
    async with proxy_to(own_broker.url) as made:
        yield made


@pytest.mark.long
async def test_a_worker_whose_connections_are_cut_keeps_its_calls(scene: Stage, proxy: TCPProxy):
    cut = await scene.start(faulty(), AMQP_URL=through(scene.url, proxy))
    await scene.start()
    calls = [f"call-{number}" for number in range(40)]
    await scene.start_calls(calls)
    before = await scene.sessions()
    victims = sorted(call for call, info in before.items() if info.worker_id == cut.worker_id)
    assert set((await scene.counts(calls)).values()) == {1}
    for times in range(1, 4):
        await proxy.disconnect_all()
        await scene.until(lambda: len(scene.logged("broker.lost")) >= times)  # noqa: B023
        await scene.until(lambda: len([r for r in cut.records if r.get("event") == "broker.attached"]) > times)  # noqa: B023
        await scene.until(lambda: len(scene.logged("delivery", outcome="still_owner")) >= times * len(victims))  # noqa: B023
        assert set((await scene.counts(calls)).values()) == {1 + times}, "state was lost"
    after = await scene.sessions()
    assert {call: info.worker_id for call, info in after.items()} == {
        call: info.worker_id for call, info in before.items()
    }
    assert not scene.of("lost")
    assert not scene.of("closed")
    await scene.end_calls(calls)
    await check(scene, "TCP cut")


@pytest.mark.long
async def test_a_worker_that_is_cut_off_for_long_is_superseded_and_comes_back(scene: Stage, proxy: TCPProxy):
    """A black hole: nothing is closed, nothing arrives; both sides notice by their heartbeats."""
    cut = await scene.start(faulty(), AMQP_URL=through(scene.url, proxy))
    other = await scene.start()
    calls = [f"call-{number}" for number in range(20)]
    await scene.start_calls(calls)
    victims = await scene.calls_of(cut)
    scene.frozen.add(worker_id_of(cut))
    hole = asyncio.Event()

    async def swallow(chunk: bytes) -> bytes:
        await hole.wait()
        return chunk

    def dig(processor) -> None:
        proxy.read_processor = proxy.write_processor = processor
        for client in proxy.clients:
            client.read_processor = client.write_processor = processor

    dig(swallow)
    dug_at = time.monotonic()
    await scene.until(lambda: {e.subject for e in scene.of("created", restored=True)} == victims, within=60)
    print(f"\nrestored {time.monotonic() - dug_at:.1f} s after the cable was pulled")  # noqa: T201
    dig(None)
    hole.set()
    await proxy.disconnect_all()
    await scene.until(lambda: {r["call_id"] for r in scene.logged("owner.ends_left_to_placer")} == victims, within=60)
    assert {e.subject for e in scene.of("lost")} == victims
    after = await scene.sessions()
    assert set(after) == set(calls)
    assert {info.worker_id for info in after.values()} == {other.worker_id}
    await scene.end_calls(calls)
    await check(scene, "black hole")


@pytest.mark.long
async def test_a_slow_network_loses_nothing(scene: Stage, proxy: TCPProxy):
    slow = await scene.start(faulty(), AMQP_URL=through(scene.url, proxy))
    scene.frozen.add(worker_id_of(slow))  # so slow that it may not be back within the grace
    await scene.start()
    proxy.set_delay(0.15, 0.15)
    load = Load(scene, random.Random(1), pace=0.5)
    await load.run(60, at_once=15)
    await proxy.disconnect_all()
    await load.run(30, at_once=15, name="after")
    print(f"\nuses: {dict(load.outcomes)}")  # noqa: T201
    await check(scene, "slow network")


@pytest.mark.long
async def test_a_worker_that_comes_back_while_it_is_declared_dead_keeps_its_calls(scene: Stage, proxy: TCPProxy):
    """What the placer sends takes long: it takes the bindings away when their worker has looked at them already."""
    placer = await scene.start(faulty(), AMQP_URL=through(scene.url, proxy))
    worker = await scene.start()
    calls = [f"call-{number}" for number in range(12)]
    await scene.start_calls(calls)
    mine = await scene.calls_of(worker)
    assert mine
    assert set((await scene.counts(calls)).values()) == {1}
    assert _placer(scene) is placer
    proxy.set_delay(0.4)  # longer, and RabbitMQ would not read the reports of the placer in time
    scene.freeze(worker)
    await scene.until(lambda: scene.logged("placer.owner_gone", worker_id=worker.worker_id), within=60)
    scene.thaw(worker)
    await scene.until(lambda: {r["call_id"] for r in scene.logged("placer.owner_returned")} == mine, within=60)
    proxy.set_delay(0)
    # Their recipes said that the worker counted as dead: the old lives are lost, and the sessions go on with new ones.
    await scene.until(lambda: {e.subject for e in scene.of("created", restored=True)} == mine, within=60)
    assert {e.subject for e in scene.of("lost", worker_id=worker.worker_id)} == mine
    after = await scene.sessions_are(calls)
    assert {call for call, info in after.items() if info.worker_id == worker.worker_id} == mine
    assert set((await scene.counts(calls)).values()) == {2}, "a session has lost its state"
    await scene.end_calls(calls)
    report = await check(scene, "back while it is buried")
    assert report.counts["reason:call_ended"] == len(calls)
    assert report.counts["lost"] == len(mine)


@pytest.mark.long
async def test_a_placer_that_changes_every_few_seconds_under_load(scene: Stage):
    for _ in range(3):
        await scene.start()
    load = Load(scene, random.Random(3), pace=0.5)
    done = asyncio.Event()

    async def depose() -> None:
        while not done.is_set():
            if (placer := _placer(scene)) is not None:
                await scene.start()
                scene.deposed += 1
                await placer.terminate()
            await asyncio.sleep(0.5)

    deposing = asyncio.create_task(depose())
    while not deposing.done() and len(scene.logged("placer.elected")) < 5:
        await load.run(40, at_once=15, name=f"call-{len(scene.accepted)}")
    done.set()
    await deposing
    print(f"\n{scene.deposed} placers deposed, uses: {dict(load.outcomes)}")  # noqa: T201
    await check(scene, "changing placer")


def _placer(scene: Stage) -> WorkerProcess | None:
    """The worker that was elected last, if it is still there."""
    elected = [
        (record["timestamp"], index)
        for index, worker in enumerate(scene.workers)
        for record in worker.records
        if record.get("event") == "placer.elected"
    ]
    worker = scene.workers[max(elected)[1]] if elected else None
    return worker if worker in scene.alive else None


@pytest.mark.long
async def test_a_recipe_that_the_broker_keeps_back_is_written_anew(scene: Stage):
    """As when RabbitMQ starts: its queues come up one after the other, and a dead letter may wait for minutes."""
    worker = await scene.start()
    await scene.start_calls(["call-1", "call-2"])
    first = {event.id.removesuffix(".created") for event in scene.of("created")}
    scene.freeze(worker)
    async with kept_back(scene, scene.names.orphans, 2):
        scene.thaw(worker)
        await scene.until(lambda: len(scene.logged("recovery.recipe_missing")) == 2, within=60)
        await scene.end_calls(["call-2"])
        await scene.event("closed", call_id="call-2")
        await scene.start()
        await scene.kill_worker(worker)
        await scene.event("lost", call_id="call-1", within=30)
        await scene.until(lambda: scene.of("created", worker_id=scene.workers[-1].worker_id), within=30)
        assert (await scene.sessions_are(["call-1"]))["call-1"].restored
        assert not first & {event.id for event in scene.events}, "who has not the recipe cannot tell of its lives"
    # They arrive at last: who receives them tells of the lives that they name, and opens nothing.
    await scene.until(lambda: {event.id for event in scene.of("lost")} >= first, within=30)
    assert set(await scene.sessions()) == {"call-1"}
    assert set((await scene.counts(["call-1"])).values()) == {1}
    await scene.end_calls(["call-1"])
    report = await check(scene, "recipes kept back")
    assert (report.counts["created"], report.counts["lost"], report.counts["closed"]) == (5, 3, 2)


@asynccontextmanager
async def kept_back(scene: Stage, queue: str, count: int) -> AsyncIterator[None]:
    """Hold this many messages of a queue, so that they do not expire; at the end they return to it."""
    link = Link(scene.url, "holder")
    await link.open()
    held: asyncio.Queue[Delivery] = asyncio.Queue()
    try:
        channel = await link.channel()
        consumer = await channel.consume(queue, held.put_nowait)
        async with asyncio.timeout(20):
            for _ in range(count):
                await held.get()
        await channel.cancel(consumer)
        yield
    finally:
        await link.close()
