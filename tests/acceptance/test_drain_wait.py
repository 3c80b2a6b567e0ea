"""``drain = "wait"``: a worker that leaves keeps its calls until they end, as long as its budget allows."""

import asyncio
import signal

from tests.harness import Cluster, config
from tests.proxy import proxy_to, through


def waiting(seconds: float) -> dict:
    return config(worker={"drain": "wait", "drain_timeout": seconds})


async def test_the_last_worker_keeps_its_calls_until_they_end_and_takes_their_ends(mcp: Cluster):
    worker = await mcp.start(waiting(60))
    for call in ("one", "two"):
        await mcp.client.publish_call_event({"call_id": call, "kind": "started"})
        await mcp.event("created", session_id=call)
    worker.process.send_signal(signal.SIGTERM)
    await worker.logged("worker.waiting")
    for call in ("one", "two"):
        assert (await mcp.client.call_tool(call, "counter")).structured_content["count"] == 1
        assert (await mcp.client.call_tool(call, "counter")).structured_content["count"] == 2
        await mcp.client.publish_call_event({"call_id": call, "kind": "ended"})
    assert await worker.ended() == 0
    await mcp.event("stopped")
    assert {event.data["reason"] for event in mcp.of("closed")} == {"call_ended"}


async def test_the_last_worker_answers_for_its_calls_when_it_has_reconnected_meanwhile(mcp: Cluster):
    async with proxy_to(mcp.url) as proxy:
        worker = await mcp.start(waiting(60), AMQP_URL=through(mcp.url, proxy))
        await mcp.client.publish_call_event({"call_id": "one", "kind": "started"})
        await mcp.event("created", session_id="one")
        worker.process.send_signal(signal.SIGTERM)
        await worker.logged("worker.waiting")
        await proxy.disconnect_all()
        await worker.logged("broker.reconnected")
        # It may not know yet that the call is still its own. Then the request comes to it as the placer.
        mcp.client._connection.lookout.seen_until = 0.0
        assert (await mcp.client.call_tool("one", "counter")).structured_content["count"] == 1
        assert list((await mcp.client.list_sessions()).sessions) == ["one"]
        await mcp.client.publish_call_event({"call_id": "one", "kind": "ended"})
        assert await worker.ended() == 0
        await mcp.event("stopped")
        assert {event.data["reason"] for event in mcp.of("closed")} == {"call_ended"}


async def test_new_calls_go_to_others_and_what_does_not_end_is_handed_over_in_time(mcp: Cluster):
    leaving = await mcp.start(waiting(3))
    await mcp.client.create("lasting", "echo")
    other = await mcp.start(waiting(3))
    await mcp.until(lambda: len(mcp.of("started")) == 2)
    leaving.process.send_signal(signal.SIGTERM)
    await leaving.logged("worker.waiting")
    created = await mcp.client.create("new", "echo")
    assert created.worker_id == other.worker_id
    assert await leaving.ended() == 0
    await mcp.event("closed", session_id="lasting", reason="worker_shutdown")
    await mcp.event("created", session_id="lasting", worker_id=other.worker_id, restored=True)


async def test_a_second_interrupt_ends_the_waiting_and_still_hands_over(mcp: Cluster):
    leaving = await mcp.start(waiting(600))
    await asyncio.gather(*(mcp.client.create(f"s-{number}", "echo") for number in range(5)))
    other = await mcp.start(waiting(600))
    await mcp.until(lambda: len(mcp.of("started")) == 2)
    leaving.process.send_signal(signal.SIGTERM)
    await leaving.logged("worker.waiting")
    leaving.process.send_signal(signal.SIGINT)
    await leaving.logged("worker.hurrying")
    assert await leaving.ended() == 0
    await mcp.until(lambda: len(mcp.of("created", restored=True, worker_id=other.worker_id)) == 5)


async def test_a_sigterm_that_comes_twice_does_not_end_the_waiting(mcp: Cluster):
    worker = await mcp.start(waiting(60))
    await mcp.client.publish_call_event({"call_id": "one", "kind": "started"})
    await mcp.event("created", session_id="one")
    worker.process.send_signal(signal.SIGTERM)
    await worker.logged("worker.waiting")
    worker.process.send_signal(signal.SIGTERM)
    await worker.logged("worker.draining_already")
    assert (await mcp.client.call_tool("one", "counter")).structured_content["count"] == 1
    await mcp.client.publish_call_event({"call_id": "one", "kind": "ended"})
    assert await worker.ended() == 0
    await mcp.event("stopped")
    assert {event.data["reason"] for event in mcp.of("closed")} == {"call_ended"}
