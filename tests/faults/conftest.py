"""A broker that may be broken, and a stage on it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from infra.broker import PrivateBroker, find_server, private_broker
from tests.faults.stage import Stage, quick_statistics, stage


@pytest.fixture(scope="session")
def fault_broker() -> Iterator[PrivateBroker]:
    """A node of our own, whatever ``AMQP_URL`` says: these tests stop and kill it."""
    if find_server() is None:
        pytest.skip("no rabbitmq-server here: a broker that comes from elsewhere is not ours to break")
    with private_broker() as node:
        quick_statistics(node)
        yield node


@pytest.fixture
async def scene(fault_broker: PrivateBroker) -> AsyncIterator[Stage]:
    async with stage(fault_broker) as made:
        yield made
