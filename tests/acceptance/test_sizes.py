"""What is too large is not read: a dead letter, and its sender told, on whichever queue it came."""

import asyncio
import json

import pytest

from consumer.broker.dead_letter import DeadLetter, Filter
from consumer.broker.dead_letter_queue import DeadLetterQueue
from consumer.broker.link import Link
from schemas.errors import InvalidMessage
from schemas.requests import SessionCreate
from tests.harness import ECHO, Cluster, config

LIMIT = 20_000


async def dead_letters(mcp: Cluster, count: int) -> list[DeadLetter]:
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="dead_lettered", reason="too_large")) >= count)
    link = Link(mcp.url, "test")
    await link.open()
    try:
        return await DeadLetterQueue(link, mcp.client.names).fitting(Filter(reason="too_large"))
    finally:
        await link.close()


async def test_a_body_over_the_bound_is_dead_lettered_unread_on_every_queue(mcp: Cluster):
    await mcp.start(config(worker={"max_message": LIMIT}))
    await mcp.client.create("c-1", "echo")
    large = {"padding": "x" * LIMIT}
    for request, body, call_id in (
        ("session.create", {"session_id": "c-2", "service_name": "echo", "metadata": large}, "c-2"),  # unowned
        ("session.create", {"session_id": "c-1#e", "service_name": "echo", "metadata": large}, "c-1"),  # inbox
        ("tools.call", {"session_id": "c-1", "name": "echo", "arguments": large}, "c-1"),  # requests
        ("sessions.list", large, None),  # queries
    ):
        with pytest.raises(InvalidMessage, match=f"bytes, {LIMIT} are allowed") as refused:
            await mcp.client.request(request, body, call_id=call_id)
        assert refused.value.details["limit"] == LIMIT
        assert refused.value.details["size"] > LIMIT
    await mcp.client.publish_call_event(b"{" * (LIMIT + 1))
    letters = await dead_letters(mcp, 5)
    assert [one.size > LIMIT for one in letters] == [True] * 5
    assert sorted(one.origin.queue.removeprefix(f"{mcp.prefix}.").partition(".")[0] for one in letters) == [
        "calls",
        "inbox",
        "queries",
        "requests",
        "unowned",
    ]
    assert str(LIMIT) in letters[0].error

    fits = {"call_id": "c-3", "kind": "started", "attributes": {"padding": "x" * (LIMIT // 2)}}
    await mcp.client.publish_call_event(json.dumps(fits).encode())
    await mcp.event("created", call_id="c-3")
    assert (await mcp.client.get("c-1")).is_alive


async def test_a_recipe_of_many_sessions_is_not_bound_by_the_size_of_one_message(mcp: Cluster):
    services = {name: {"command": ECHO} for name in ("one", "two", "three")}
    given = config(services=services, worker={"max_message": LIMIT, "grace": 2})
    await mcp.start(given)
    metadata = {"padding": "x" * (LIMIT * 3 // 4)}
    for session_id, service in (("c-1", "one"), ("c-1#two", "two"), ("c-1#three", "three")):
        await mcp.client.create(session_id, service, metadata=metadata)
    # Settled, or the last of them comes back as well: then it is opened, not restored.
    await mcp.until(lambda: len(mcp.logged("delivery", type=SessionCreate.type, outcome="done")) == len(services))
    await mcp.client.get("c-1")  # what was to be sent when they were logged has been sent
    await mcp.workers[0].kill()
    await mcp.start(given)
    for service in services:
        restored = await mcp.event("created", service_name=service, restored=True)
        assert restored.data["metadata"] == metadata
    assert mcp.logged("delivery", reason="too_large") == []


async def test_metadata_that_no_recipe_can_hold_is_refused(mcp: Cluster):
    """RabbitMQ takes 16 MiB from 4.0, and closes the channel for more: the worker must not even try."""
    services = {name: {"command": ECHO} for name in ("one", "two", "three")}
    await mcp.start(config(services=services, worker={"max_message": "6M"}, session={"max_metadata": "6M"}))
    metadata = {"padding": "x" * (5 << 20)}
    for session_id, service in (("c-1", "one"), ("c-1#two", "two")):
        await mcp.client.create(session_id, service, metadata=metadata)
    with pytest.raises(InvalidMessage, match="its call has room for"):
        await mcp.client.create("c-1#three", "three", metadata=metadata)
    await mcp.client.create("c-1#two", "two", metadata={}, if_exists="replace")
    await mcp.client.create("c-1#three", "three", metadata=metadata)
    closed = await asyncio.wait_for(mcp.client.close("c-1"), 45)
    assert sorted(closed.sessions) == ["c-1", "c-1#three", "c-1#two"]
    assert mcp.logged("broker.lost") == []
