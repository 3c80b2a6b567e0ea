"""A publication that the broker refuses to a client fails alone: everything else that is under way goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from consumer.broker.lent_channels import MOST_LENT
from consumer.broker.link import Link
from consumer.broker.topology import Binding, Exchange, Names, Queue
from consumer.client import SessionClient
from schemas.errors import Disconnected, NoReply, NotConfirmed, NotRouted, NotRoutedReason
from tests.harness import WAIT, Cluster
from tests.proxy import proxy_to, standing_still, through

EVENT = {"call_id": "c-events", "kind": "started"}


@asynccontextmanager
async def operator(url: str) -> AsyncIterator[Link]:
    link = Link(url, "operator")
    await link.open()
    try:
        yield link
    finally:
        await link.close()


async def test_an_exchange_that_was_deleted_after_it_was_found_costs_nothing_else(mcp: Cluster):
    await mcp.start()
    client, own = mcp.client, f"{mcp.prefix}-platform"
    await client.create("c-1", "echo")
    async with operator(mcp.url) as link, link.scratch() as channel:
        await channel.declare_exchange(Exchange(own, "topic", "", foreign=True))
        await channel.bind(Binding(own, Names(mcp.prefix).calls, "#"))
        await client.publish_call_event(EVENT, exchange=own)
        before, runs = client._connection._link, asyncio.Event()
        slow = {"steps": 20, "interval": 0.05}
        calling = asyncio.create_task(client.call_tool("c-1", "progress", slow, on_progress=lambda _: runs.set()))
        await asyncio.wait_for(runs.wait(), WAIT)
        await channel.delete_exchange(own)
    told = await asyncio.gather(
        *(client.publish_call_event(EVENT, exchange=own) for _ in range(2 * MOST_LENT)),
        *(client.publish_call_event(EVENT) for _ in range(2 * MOST_LENT)),
        *(client.list_sessions() for _ in range(2 * MOST_LENT)),
        return_exceptions=True,
    )
    refused, taken = told[: 2 * MOST_LENT], told[2 * MOST_LENT :]
    assert {type(one) for one in refused} == {NotRouted}
    assert {one.details["reason"] for one in refused if isinstance(one, NotRouted)} == {NotRoutedReason.NO_EXCHANGE}
    assert [one for one in taken if isinstance(one, BaseException)] == []
    assert not (await asyncio.wait_for(calling, WAIT)).is_error
    assert client._connection._link is before


async def test_tool_calls_whose_exchange_was_deleted_fail_at_once_and_the_connection_stays(mcp: Cluster):
    await mcp.start()
    client, names = mcp.client, Names(mcp.prefix)
    await client.create("c-1", "echo")
    assert (await client.call_tool("c-1", "echo", {"text": "a"})).text == "a"
    before = client._connection._link
    async with operator(mcp.url) as link, link.scratch() as channel:
        await channel.delete_exchange(names.requests)
    async with asyncio.timeout(WAIT):
        with pytest.raises(NotConfirmed, match="NOT_FOUND") as lost:
            await client.call_tool("c-1", "echo", {"text": "b"})
        assert lost.value.executed is None
        with pytest.raises(NotRouted, match=rf"is incomplete.*missing: exchange {names.requests}") as missing:
            await client.call_tool("c-1", "echo", {"text": "c"})
    assert missing.value.details == {"reason": "not_declared", "missing": [f"exchange {names.requests}"]}
    assert list((await client.list_sessions()).sessions) == ["c-1"]
    assert client._connection._link is before


async def test_a_broker_that_confirms_nothing_is_waited_for_no_longer_than_for_the_reply(mcp: Cluster):
    await mcp.start()
    async with proxy_to(mcp.url) as proxy, SessionClient(through(mcp.url, proxy), prefix=mcp.prefix) as client:
        await client.list_workers()
        client._connection.lookout.seen_until = float("inf")  # as if a worker had answered a moment ago
        with standing_still(proxy), pytest.raises(NoReply, match=r"no reply to workers\.list within 0\.5 s"):
            await asyncio.wait_for(client.list_workers(reply_timeout=0.5), WAIT)


async def test_publications_that_are_given_up_leave_the_client_usable(mcp: Cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("consumer.broker.lent_channels.MOST_CHANNELS", 4)
    await mcp.start()
    async with proxy_to(mcp.url) as proxy, SessionClient(through(mcp.url, proxy), prefix=mcp.prefix) as client:
        await asyncio.gather(*(client.publish_call_event(EVENT) for _ in range(4)))  # each on a channel of its own
        link, told = client._connection._link, []
        with standing_still(proxy):
            for _ in range(3):
                publishing = [asyncio.create_task(client.publish_call_event(EVENT)) for _ in range(4)]
                await asyncio.wait(publishing, timeout=0.1)
                for one in publishing:
                    one.cancel()
                told += await asyncio.gather(*publishing, return_exceptions=True)
        assert {type(one) for one in told} <= {asyncio.CancelledError, Disconnected}
        async with asyncio.timeout(WAIT):
            while True:
                try:
                    await client.publish_call_event(EVENT)
                    break
                except Disconnected:
                    await asyncio.sleep(0.01)
        assert client._connection._link is link


async def test_what_is_missing_is_told_to_programs(mcp: Cluster, amqp_url: str, prefix: str):
    async with SessionClient(amqp_url, prefix=f"{prefix}-other") as client:
        with pytest.raises(NotRouted, match="nothing is declared under the prefix") as caught:
            await client.list_workers()
        assert caught.value.details["reason"] == NotRoutedReason.NOT_DECLARED
        assert f"exchange {prefix}-other.cluster" in caught.value.details["missing"]
        await (await client._connection._linked().channel()).declare_queue(
            Queue(f"{prefix}-other.queries", "", exclusive=True)
        )
        with pytest.raises(NotRouted, match="incomplete") as caught:
            await client.publish_call_event(EVENT)
        assert f"queue {prefix}-other.queries" not in caught.value.details["missing"]
    worker = await mcp.start()
    await worker.terminate()
    mcp.client._connection.lookout.seen_until = 0.0
    with pytest.raises(NotRouted) as caught:
        await mcp.client.list_workers()
    assert caught.value.details == {"reason": "no_worker"}
