"""Blocks (``with`` and ``async with``) of one client: nested, or of several tasks at once."""

import asyncio

import pytest

from consumer.client import SessionClient, SyncSessionClient
from infra.loopback import LOOPBACK, free_port
from schemas.errors import CannotConnect, Disconnected
from tests.harness import Cluster


@pytest.fixture
async def mcp(mcp: Cluster) -> Cluster:
    await mcp.start()
    return mcp


async def test_the_end_of_an_inner_block_leaves_the_client_connected(mcp: Cluster):
    client = SessionClient(mcp.url, prefix=mcp.prefix)
    async with client:
        async with client:
            await client.list_workers()
        assert (await client.list_workers()).workers
    assert not client.connected
    with pytest.raises(Disconnected, match="connect the client first"):
        await client.list_workers()
    async with client:  # and once more
        await client.list_workers()
    assert not client.connected


async def test_who_disconnects_in_a_block_is_disconnected(mcp: Cluster):
    client = SessionClient(mcp.url, prefix=mcp.prefix)
    async with client, client:
        await client.disconnect()
        with pytest.raises(Disconnected):
            await client.list_workers()


async def test_tasks_that_enter_it_at_once_share_one_connection(mcp: Cluster):
    client = SessionClient(mcp.url, prefix=mcp.prefix)

    async def ask(pause: float) -> int:
        async with client:  # whoever comes second waits for the first one's connection
            await asyncio.sleep(pause)
            return len((await client.list_workers()).workers)

    assert list(await asyncio.gather(ask(0), ask(0.5), ask(0.2))) == [1, 1, 1]
    assert not client.connected


async def test_all_who_enter_it_hear_that_there_is_no_broker():
    client = SessionClient(f"amqp://{LOOPBACK}:{free_port()}/", connect_timeout=0.3)
    refused = await asyncio.gather(client.__aenter__(), client.__aenter__(), return_exceptions=True)
    assert all(isinstance(one, CannotConnect) for one in refused), refused


async def test_the_end_of_an_inner_block_leaves_the_synchronous_client_connected(mcp: Cluster):
    def use() -> None:
        client = SyncSessionClient(mcp.url, prefix=mcp.prefix)
        with client:
            with client:
                client.list_workers()
            assert client.list_workers().workers
        with pytest.raises(Disconnected):
            client.list_workers()

    await asyncio.to_thread(use)
