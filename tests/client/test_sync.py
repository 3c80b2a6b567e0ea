"""The synchronous twin: the same client, from threads."""

import asyncio
import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from consumer.client import SessionClient, SyncEvents, SyncSessionClient
from infra.loopback import LOOPBACK, free_port
from schemas.errors import CannotConnect, Disconnected, SessionNotFound, ToolNotFound
from schemas.events import CloudEvent
from tests.harness import WAIT, Cluster


def threads() -> set[str]:
    return {one.name for one in threading.enumerate() if one.name.startswith("mcp-sessions")}


@pytest.fixture
async def mcp(mcp: Cluster) -> Cluster:
    await mcp.start()
    return mcp


async def in_a_thread(work):
    async with asyncio.timeout(WAIT):
        return await asyncio.to_thread(work)


def polled(events: SyncEvents) -> CloudEvent:
    while True:
        with suppress(TimeoutError):
            return events.get(0)
        time.sleep(0.01)


async def test_it_does_what_the_asyncio_client_does(mcp: Cluster):
    def work() -> None:
        with SyncSessionClient(mcp.url, prefix=mcp.prefix) as client, client.following("session.*.echo") as events:
            client.publish_call_event({"call_id": "c", "kind": "started"})
            assert events.get(timeout=WAIT).type == "mcp.session.created"
            with pytest.raises(TimeoutError):
                events.get(0)
            with pytest.raises(SessionNotFound, match="with the service_name 'other' the request opens one"):
                client.call_tool("c#other", "echo")
            assert client.call_tool("c", "echo", {"text": "hello"}).text == "hello"
            assert client.get("c").service_name == "echo"
            with pytest.raises(ToolNotFound):
                client.call_tool("c", "nonsense")
            assert [one.session_id for one in client.iter_sessions(page_size=1)] == ["c"]
            assert client.list_services().services["echo"].sessions == 1
            assert client.close("c").closed
            assert next(iter(events)).data["reason"] == "requested"
            client.create("c", "echo")
            client.close("c")
            assert [polled(events).type for _ in range(2)] == ["mcp.session.created", "mcp.session.closed"]
            with pytest.raises(TimeoutError):
                events.get(timeout=0.05)

    await in_a_thread(work)
    assert threads() == set()


async def test_one_client_serves_many_threads_at_once(mcp: Cluster):
    def work() -> list[str]:
        with SyncSessionClient(mcp.url, prefix=mcp.prefix) as client, ThreadPoolExecutor(16) as pool:
            calls = [f"c-{number}" for number in range(16)]
            list(pool.map(lambda call: client.create(call, "echo"), calls))
            return list(pool.map(lambda call: client.call_tool(call, "echo", {"text": call}).text, calls))

    assert await in_a_thread(work) == [f"c-{number}" for number in range(16)]
    assert threads() == set()


async def test_what_is_called_back_runs_in_the_thread_that_waits(mcp: Cluster):
    def work() -> None:
        here, heard = threading.get_ident(), []
        with SyncSessionClient(mcp.url, prefix=mcp.prefix) as client:
            client.create("c", "echo")

            def progress(message):
                heard.append((threading.get_ident(), message.progress))
                if len(heard) == 1:  # it may use the client, which would wait for itself otherwise
                    assert client.get("c").is_alive

            def question(message):
                assert threading.get_ident() == here
                return {"action": "accept", "content": {"answer": message.params["message"]}}

            client.call_tool("c", "progress", {"steps": 3}, on_progress=progress)
            assert heard == [(here, 1.0), (here, 2.0), (here, 3.0)]
            answer = client.call_tool("c", "ask", {"question": "Which?"}, on_question=question)
            assert answer.structured_content["reply"]["result"]["content"] == {"answer": "Which?"}

            def broken(message):
                raise LookupError("of the caller's own")

            with pytest.raises(LookupError, match="own"):
                client.call_tool("c", "progress", {"steps": 3}, on_progress=broken)

    await in_a_thread(work)


async def test_a_client_that_is_disconnected_ends_what_waits_and_can_be_connected_again(mcp: Cluster):
    def work() -> None:
        client = SyncSessionClient(mcp.url, prefix=mcp.prefix)
        client.connect()
        client.create("c", "echo")
        entered = threading.Event()
        heard: list[CloudEvent] = []

        def follow() -> None:
            with client.following("#") as events:
                entered.set()
                heard.extend(events)

        with ThreadPoolExecutor(2) as pool:
            calling = pool.submit(client.call_tool, "c", "progress", {"steps": 1000, "interval": 0.05})
            following = pool.submit(follow)
            assert entered.wait(WAIT)
            client.disconnect()
            with pytest.raises(Disconnected):
                calling.result(WAIT)
            following.result(WAIT)
        assert threads() == set()
        with pytest.raises(Disconnected, match="with"):
            client.get("c")
        with client:
            assert client.get("c").is_alive
        client.disconnect()

    await in_a_thread(work)


def test_a_broker_that_is_not_there_is_said_and_leaves_no_thread():
    client = SyncSessionClient(f"amqp://{LOOPBACK}:{free_port()}/", connect_timeout=0.2)
    with pytest.raises(CannotConnect):
        client.connect()
    assert threads() == set()


def test_it_has_every_method_of_the_asyncio_client():
    def public(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}

    assert public(SyncSessionClient) == public(SessionClient) - {"names"}
    for name in public(SyncSessionClient) - {"connect", "disconnect", "connected"}:
        ours, theirs = (
            list(inspect.signature(getattr(kind, name)).parameters) for kind in (SyncSessionClient, SessionClient)
        )
        assert ours == theirs, name
