"""Everything that the client raises is one family, and says whether anything was executed."""

import asyncio
import json
import logging
import math
import signal

import pytest

from consumer.broker.link import Link
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Queue
from consumer.client import SessionClient
from infra.loopback import LOOPBACK, free_port
from schemas.errors import (
    CannotConnect,
    ClientError,
    Disconnected,
    InvalidReply,
    InvalidUrl,
    NoReply,
    NotRouted,
    RequestTooLarge,
    SessionNotFound,
    SessionsError,
)
from tests.harness import WAIT, Cluster
from tests.proxy import through


async def test_a_broker_that_is_not_there_is_said_when_connecting():
    client = SessionClient(f"amqp://{LOOPBACK}:{free_port()}/", connect_timeout=0.3)
    with pytest.raises(SessionsError) as caught:
        await client.connect()
    assert isinstance(caught.value, CannotConnect)
    assert (caught.value.code, caught.value.executed) == ("BROKER_UNREACHABLE", False)


async def test_a_port_without_tls_is_said_with_what_to_write(amqp_url: str):
    client = SessionClient(amqp_url.replace("amqp://", "amqps://", 1))
    with pytest.raises(CannotConnect, match=r"does not speak TLS: name the broker's port for TLS.*amqp://"):
        await client.connect()


async def test_before_the_first_connection_it_is_connecting():
    client = SessionClient(f"amqp://{LOOPBACK}:{free_port()}/", connect_timeout=WAIT)
    connecting = asyncio.create_task(client.connect())
    await asyncio.sleep(0)  # it has begun
    with pytest.raises(Disconnected, match=r"^connecting to the broker$"):
        await client.list_workers()
    connecting.cancel()
    await asyncio.wait({connecting})


async def test_a_cancelled_question_is_no_line_of_the_librarys(amqp_url: str, caplog: pytest.LogCaptureFixture):
    link = Link(amqp_url, "test")
    await link.open()
    async with link.scratch() as channel:
        asking = asyncio.create_task(channel.counts("nobody-declared-this"))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
    await link.close()
    assert asking.cancelled()
    assert not [one for one in caplog.records if one.name.startswith("aiormq")]


def test_a_url_that_leads_nowhere_is_said_at_once():
    with pytest.raises(InvalidUrl):
        SessionClient("http://localhost")


async def test_a_client_that_is_not_connected_says_what_to_do():
    with pytest.raises(Disconnected, match="async with") as caught:
        await SessionClient("amqp://localhost").list_workers()
    assert caught.value.executed is False


async def test_a_prefix_without_workers_is_told_apart_from_a_broker_that_is_away(amqp_url: str, prefix: str):
    async with SessionClient(amqp_url, prefix=prefix) as client:
        with pytest.raises(NotRouted) as caught:
            await client.list_workers()
    assert (caught.value.code, caught.value.executed) == ("NOT_ROUTED", False)


async def test_what_no_worker_has_declared_is_said_at_once_and_the_connection_stays(amqp_url: str, prefix: str):
    async with SessionClient(amqp_url, prefix=prefix) as client:
        link = client._connection._link
        async with asyncio.timeout(WAIT):
            for ask in (
                client.publish_call_event({"call_id": "c", "kind": "started"}),
                client.create("c", "todo", reply_timeout=600),
                client.call_tool("c", "echo", {}, timeout=600, service_name="todo"),
                client.get("c", reply_timeout=600),
                client.list_workers(reply_timeout=600),
                client.count_dead_letters(),
            ):
                with pytest.raises(NotRouted, match=rf"under the prefix '{prefix}'.*check the prefix"):
                    await ask
        assert client._connection._link is link


async def test_to_disconnect_is_not_told_as_a_lost_link(mcp: Cluster):
    await mcp.start()
    client = SessionClient(mcp.url, prefix=mcp.prefix)
    await client.connect()
    await client.create("c", "echo")
    runs = asyncio.Event()
    slow = {"steps": 1000, "interval": 0.05}
    calling = asyncio.create_task(client.call_tool("c", "progress", slow, on_progress=lambda _: runs.set()))
    async with asyncio.timeout(WAIT):
        await runs.wait()
        await client.disconnect()
        with pytest.raises(Disconnected, match="the client was disconnected before the reply came") as caught:
            await calling
    assert caught.value.executed is None


async def test_an_exchange_that_is_not_there_is_an_error_of_that_publish_only(mcp: Cluster):
    await mcp.start()
    event = {"call_id": "c", "kind": "started"}
    link = mcp.client._connection._link
    told = await asyncio.gather(
        *(mcp.client.publish_call_event(event, exchange=f"{mcp.prefix}-typo") for _ in range(50)),
        *(mcp.client.publish_call_event(event) for _ in range(50)),
        return_exceptions=True,
    )
    assert {type(one) for one in told[:50]} == {NotRouted}
    assert "check its name" in str(told[0])
    assert told[50:] == [None] * 50
    assert mcp.client._connection._link is link


async def test_a_lost_connection_ends_what_waits_with_an_error_of_the_family(mcp: Cluster, proxy):
    await mcp.start()
    async with SessionClient(through(mcp.url, proxy), prefix=mcp.prefix) as client:
        await client.create("c", "echo")
        runs = asyncio.Event()  # so the broker has confirmed it
        slow = {"steps": 300, "interval": 0.1}
        calling = asyncio.create_task(client.call_tool("c", "progress", slow, on_progress=lambda _: runs.set()))
        await asyncio.wait_for(runs.wait(), WAIT)
        await proxy.disconnect_all()
        with pytest.raises(Disconnected) as caught:
            await asyncio.wait_for(calling, WAIT)
        assert caught.value.executed is None, "nobody knows"


async def test_nobody_who_answers_in_time_is_no_reply(mcp: Cluster):
    worker = await mcp.start()
    await worker.kill()
    mcp.client._connection.lookout.seen_until = math.inf  # as if it had answered a moment ago
    with pytest.raises(NoReply, match=r"0\.3 s") as caught:
        await mcp.client.list_workers(reply_timeout=0.3)
    assert caught.value.executed is None


async def test_with_no_worker_at_all_a_request_is_not_sent_and_says_so_within_seconds(mcp: Cluster):
    worker = await mcp.start()
    await worker.terminate()
    mcp.client._connection.lookout.seen_until = 0.0
    told = await asyncio.wait_for(
        asyncio.gather(
            mcp.client.list_workers(reply_timeout=600),
            mcp.client.create("c-1", "echo", reply_timeout=600),
            mcp.client.call_tool("c-2", "counter", {}, timeout=600, service_name="echo"),
            mcp.client.call_tool("c-2", "counter", {}, timeout=0.1, service_name="echo"),
            return_exceptions=True,
        ),
        WAIT,
    )
    for error in told:
        assert isinstance(error, NotRouted)
        assert error.executed is False
        assert str(error) == f"no worker runs under the prefix {mcp.prefix!r}; nothing was sent"
    await mcp.start()
    counted = await mcp.client.call_tool("c-2", "counter", {}, service_name="echo")
    assert counted.text == '{"count": 1}', "what was refused is not executed by a worker that starts later"


async def test_a_request_waits_unsent_for_a_worker_that_is_starting(mcp: Cluster, monkeypatch: pytest.MonkeyPatch):
    worker = await mcp.start()
    await worker.terminate()
    monkeypatch.setattr("consumer.client.lookout.MOST_WAITED", WAIT)
    mcp.client._connection.lookout.seen_until = 0.0
    calling = asyncio.create_task(mcp.client.call_tool("c-1", "counter", {}, service_name="echo", timeout=WAIT))
    while not mcp.client._connection.lookout.missed:
        await asyncio.sleep(0.01)
    await mcp.start()
    assert (await asyncio.wait_for(calling, WAIT)).text == '{"count": 1}'


async def test_what_was_sent_is_not_given_up_while_a_worker_that_comes_would_execute_it(mcp: Cluster):
    worker = await mcp.start()
    await worker.terminate()
    mcp.client._connection.lookout.seen_until = math.inf  # as if the worker had answered a moment ago
    with pytest.raises(NoReply, match="no worker runs under the prefix"):  # a question can be given up
        await asyncio.wait_for(mcp.client.list_workers(reply_timeout=600), WAIT)
    with pytest.raises(NoReply, match=r"no reply to tools\.call within 1\.5 s") as caught:
        await mcp.client.call_tool("c-1", "counter", {}, service_name="echo", timeout=0.5)
    assert caught.value.executed is None
    calling = asyncio.create_task(mcp.client.call_tool("c-1", "counter", {}, service_name="echo", timeout=WAIT))
    while not mcp.client._connection._rpc_client._waiting:
        await asyncio.sleep(0.01)
    await mcp.start()
    assert (await asyncio.wait_for(calling, WAIT)).text == '{"count": 1}', "and the one that was given up has expired"


async def test_an_answer_that_is_long_in_coming_is_waited_for_though_its_worker_is_leaving(mcp: Cluster):
    worker = await mcp.start(DYNO="worker.1")
    await mcp.client.create("c-1", "echo")
    calling = asyncio.create_task(mcp.client.call_tool("c-1", "sleep", {"seconds": 7}))
    while not mcp.client._connection._rpc_client._waiting:
        await asyncio.sleep(0.01)
    worker.process.send_signal(signal.SIGTERM)
    await worker.logged("worker.draining")
    assert not (await asyncio.wait_for(calling, WAIT)).is_error
    await worker.ended()


async def test_a_request_that_no_broker_takes_is_not_sent(mcp: Cluster):
    await mcp.start()
    with pytest.raises(RequestTooLarge) as caught:
        await mcp.client.call_tool("c", "echo", {"text": "x" * (17 << 20)})
    assert caught.value.executed is False


async def test_an_error_of_a_worker_is_no_error_of_the_client(mcp: Cluster):
    await mcp.start()
    with pytest.raises(SessionNotFound) as caught:
        await mcp.client.get("nobody")
    assert not isinstance(caught.value, ClientError)


@pytest.mark.parametrize(
    "body", [b"nonsense", b'{"ok": true, "result": {"workers": 3}}', b'{"ok": true, "result": {}}', b"[]"]
)
async def test_a_reply_that_cannot_be_read_is_an_error_of_the_family(amqp_url: str, prefix: str, body: bytes):
    async with answering(amqp_url, prefix, body) as client:
        with pytest.raises(InvalidReply):
            await client.list_workers()


async def test_what_a_newer_worker_says_more_is_left_out(amqp_url: str, prefix: str):
    service = {"description": "", "enabled": True, "transport": "stdio", "sessions": 1, "max_sessions": 2, "new": 3}
    body = json.dumps({"ok": True, "result": {"services": {"echo": service}, "new": True}}).encode()
    async with answering(amqp_url, prefix, body) as client:
        assert (await client.list_services()).services["echo"].sessions == 1


async def test_who_follows_hears_that_the_client_has_disconnected(mcp: Cluster):
    await mcp.start()
    client = SessionClient(mcp.url, prefix=mcp.prefix)
    with pytest.raises(Disconnected, match="connect the client first") as caught:
        await client.list_workers()
    assert (caught.value.executed, caught.value.retryable) == (False, False), "it does not connect by itself"
    await client.connect()

    async def all_events() -> list[str]:
        return [event.type async for event in client.events()]

    iterating = asyncio.create_task(all_events())
    async with asyncio.timeout(WAIT), client.following() as events:
        waiting = [asyncio.create_task(events.get()) for _ in range(2)]
        while len(client._connection.followers._followed) < 2:
            await asyncio.sleep(0.01)
        await client.disconnect()
        for one in waiting:
            with pytest.raises(Disconnected, match="follow again"):
                await one
        with pytest.raises(Disconnected):
            await events.get()
        assert await iterating == []


class answering:  # noqa: N801 - it reads as what it does
    """A client whose every question gets the same answer, whoever answers."""

    def __init__(self, url: str, prefix: str, body: bytes) -> None:
        self._body = body
        self._prefix = prefix
        self._link = Link(url, "test")
        self._publisher = Publisher()
        self._client = SessionClient(url, prefix=prefix)
        self._tasks: set[asyncio.Task[None]] = set()

    def _answer(self, asked: Delivery) -> None:
        reply = Message(self._body, type="x.reply", correlation_id=asked.message.correlation_id)
        task = asyncio.create_task(self._publisher.publish(reply, "", asked.message.reply_to or "", confirm=False))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def __aenter__(self) -> SessionClient:
        await self._link.open()
        self._publisher.attach(await self._link.publishing())
        channel = await self._link.channel()
        await channel.declare_queue(Queue(f"{self._prefix}.queries", "", exclusive=True))
        await channel.consume(f"{self._prefix}.queries", self._answer, no_ack=True)
        return await self._client.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self._client.disconnect()
        await self._link.close()


async def test_a_lost_connection_leaves_no_traceback_of_the_library_below(
    mcp: Cluster, proxy, caplog: pytest.LogCaptureFixture
):
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    async with SessionClient(through(mcp.url, proxy), prefix=mcp.prefix) as client:
        asking = asyncio.create_task(client.list_workers())
        await proxy.disconnect_all()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(WAIT):
            while client.connected:
                await asyncio.sleep(0.01)
            while not client.connected:
                await asyncio.sleep(0.01)
    assert [one for one in caplog.records if one.levelno >= logging.ERROR or one.exc_info] == []
    assert problems == []
