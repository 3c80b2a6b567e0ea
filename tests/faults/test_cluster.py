"""Three nodes on loopback, stopped one after the other under load."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest

from infra.broker import PrivateBroker, find_server, private_broker
from tests.faults.checker import check
from tests.faults.load import Load
from tests.faults.stage import Stage, faulty, stage
from tests.harness import QUICK_STATISTICS

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[PrivateBroker]]:
    if find_server() is None:
        pytest.skip("no rabbitmq-server here")
    made = partial(private_broker, arguments=QUICK_STATISTICS)
    with made() as first, made(peer=first) as second, made(peer=first) as third:
        for one in (second, third):
            one.join_cluster(first)
        yield [first, second, third]


@pytest.fixture
async def scene(nodes: list[PrivateBroker]) -> AsyncIterator[Stage]:
    """The test itself, its log and its client talk to the first node; the workers to one node each."""
    async with stage(nodes[0]) as made:
        yield made


async def test_each_node_stopped_in_turn_under_load_loses_no_event_and_no_session(
    scene: Stage, nodes: list[PrivateBroker]
):
    for node in nodes:
        await scene.start(faulty(), AMQP_URL=node.url)
    lasting = [f"lasting-{number}" for number in range(30)]
    await scene.start_calls(lasting)
    load = Load(scene, random.Random(5), pace=1.0)
    for number, node in enumerate(nodes):
        running = asyncio.create_task(load.run(80, at_once=15, name=f"around-{number}"))
        await asyncio.sleep(2)
        scene.outages += 1
        scene.frozen |= {worker.worker_id for worker in scene.workers[number : number + 1]}
        await asyncio.to_thread(node.stop_app)
        await asyncio.sleep(8)
        await asyncio.to_thread(node.start_app)
        await running
    scene.statistics_age = 6.0
    after = await scene.sessions()
    assert set(lasting) <= set(after), f"lost: {set(lasting) - set(after)}"
    print(f"\nuses: {dict(load.outcomes)}")  # noqa: T201
    await scene.end_calls(lasting)
    await check(scene, "three-node cluster")
