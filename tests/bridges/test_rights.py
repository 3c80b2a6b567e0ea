"""A bridge with a user of RabbitMQ that has the rights of a publisher, and no more."""

import asyncio

import pytest

from consumer.broker.declare import apply
from consumer.broker.link import Link
from consumer.broker.topology import cluster_topology
from infra.broker import PrivateBroker
from tests.bridges.conftest import spawned
from tests.bridges.standin import Ari
from tests.broker_users import NAMES, give_rights, url_of
from tests.harness import cluster


@pytest.mark.timeout(180)
async def test_a_bridge_needs_a_publisher_and_no_more(own_broker: PrivateBroker, ari: Ari):
    node = own_broker
    async with cluster(node.url, NAMES.prefix) as mcp:
        await asyncio.to_thread(give_rights, node)
        link = Link(url_of(node, "operator"), "operator")
        await link.open()
        await apply(await link.channel(), cluster_topology(NAMES), link=link)
        await link.close()
        await mcp.start(AMQP_URL=url_of(node, "worker"))
        bridge = await spawned(mcp, ari, AMQP_URL=url_of(node, "publisher"))
        try:
            await bridge.logged("bridge.ready")
            await ari.begin("c-1")
            await mcp.event("created", call_id="c-1")
            await ari.hang_up("c-1")
            await mcp.event("closed", call_id="c-1", reason="call_ended")
        finally:
            assert await bridge.terminate() == 0
        told = {one["event"] for one in bridge.records if one.get("level") in ("warning", "error")}
        assert told <= {"settings.warning"}
