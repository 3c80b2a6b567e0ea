import asyncio
from collections.abc import AsyncIterator

import pytest

from consumer.broker.declare import apply
from consumer.broker.link import Link
from consumer.broker.topology import cluster_topology
from consumer.client import SessionClient
from infra.broker import PrivateBroker, find_server
from tests.broker_users import NAMES, give_rights, url_of
from tests.harness import Cluster, cluster, config
from tests.security.broker.attacker import Attacker
from tests.security.broker.scene import Scene


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_server() is None:
        for item in items:
            if "tests/security/broker" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="no rabbitmq-server here: the broker comes from elsewhere"))


@pytest.fixture(scope="session")
def node(own_broker: PrivateBroker) -> PrivateBroker:
    return own_broker


@pytest.fixture
async def mcp(node: PrivateBroker) -> AsyncIterator[Cluster]:
    """What an operator has declared; workers are started as ``worker``."""
    async with cluster(node.url, NAMES.prefix) as made:
        link = Link(node.url, "apply")
        await link.open()
        await apply(await link.channel(), cluster_topology(NAMES), link=link)
        await link.close()
        await asyncio.to_thread(give_rights, node)
        yield made


@pytest.fixture
async def scene(mcp: Cluster, node: PrivateBroker) -> AsyncIterator[Scene]:
    """Two workers and six live calls."""
    for _ in range(2):
        await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    async with (
        SessionClient(url_of(node, "publisher"), prefix=NAMES.prefix) as publisher,
        SessionClient(url_of(node, "client"), prefix=NAMES.prefix) as client,
    ):
        made = Scene(mcp, publisher, client)
        await made.live(6)
        yield made


@pytest.fixture
async def attacker(mcp: Cluster, node: PrivateBroker) -> AsyncIterator[Attacker]:
    """A client that means harm."""
    async with Attacker(url_of(node, "client")) as made:
        yield made


@pytest.fixture
async def former(mcp: Cluster, node: PrivateBroker) -> AsyncIterator[Attacker]:
    """A client that means harm, with the rights of before."""
    async with Attacker(url_of(node, "former")) as made:
        yield made
