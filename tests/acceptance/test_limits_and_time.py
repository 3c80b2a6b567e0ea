"""What keeps a session from expiring, capacity when there is none, and speed as ratios."""

import asyncio
import time

import pytest

from consumer.processes.stdio.process import EOF_TIMEOUT
from schemas.errors import Capacity, NoReply, ServiceSessionLimit, SessionExists
from tests.harness import ECHO, Cluster, config


async def test_a_call_in_flight_keeps_its_session_and_the_idle_time_counts_from_its_end(mcp: Cluster):
    await mcp.start()
    await mcp.client.create("busy", "echo", timeout=0.4)
    answer = await mcp.client.call_tool("busy", "sleep", {"seconds": 1.2})
    assert not answer.is_error
    assert mcp.of("expired") == []
    assert (await mcp.event("expired", session_id="busy")).data["reason"] == "idle"


async def test_a_life_is_never_longer_than_max_lifetime(mcp: Cluster):
    await mcp.start(config(session={"max_lifetime": 1.0}))
    await mcp.client.create("long", "echo", timeout=60)
    expired = await mcp.event("expired", session_id="long")
    assert expired.data["reason"] == "max_lifetime"


@pytest.mark.parametrize(
    ("session", "error"),
    [({"max_total_sessions": 2}, Capacity), ({"max_sessions_per_service": 2}, ServiceSessionLimit)],
    ids=["every worker is full", "only that service is full"],
)
async def test_without_room_a_start_is_refused_in_time_and_reported(mcp: Cluster, session, error):
    wait = 0.6
    configuration = config(session=session, worker={"admission_wait": wait})
    for _ in range(2):
        await mcp.start(configuration)
    for number in range(4):
        await mcp.client.create(f"full-{number}", "echo")
    began = time.monotonic()
    with pytest.raises(error):
        await mcp.client.create("one-more", "echo")
    assert wait <= time.monotonic() - began < wait + 10
    rejected = await mcp.event("rejected", session_id="one-more")
    assert rejected.data["code"] == error.code

    await mcp.client.publish_call_event({"call_id": "event", "kind": "started"})
    assert (await mcp.event("rejected", session_id="event")).data["code"] == error.code

    # What ends is not held up, and what ends makes room for those who wait.
    waiting = asyncio.create_task(mcp.client.create("patient", "echo"))
    await mcp.client.close("full-0")
    assert (await waiting).session_id == "patient"


async def test_thirty_two_sessions_close_at_once(mcp: Cluster):
    slow = [*ECHO, "--ignore-eof"]  # each takes EOF_TIMEOUT to close, however busy the machine is
    await mcp.start({"services": {"echo": {"command": slow}}})
    await asyncio.gather(*(mcp.client.create(f"s-{number}", "echo") for number in range(32)))
    began = time.monotonic()
    await asyncio.gather(*(mcp.client.close(f"s-{number}") for number in range(32)))
    assert EOF_TIMEOUT <= time.monotonic() - began < 32 * EOF_TIMEOUT / 2


async def test_a_session_that_nobody_waits_for_any_more_is_not_opened(mcp: Cluster):
    """Its requester gave up while every worker was full: what comes too late would be nobody's."""
    full = config(session={"max_total_sessions": 1}, worker={"admission_wait": 30})
    await mcp.start(full)
    await mcp.client.create("first", "echo")
    with pytest.raises(NoReply):
        await mcp.client.create("late", "echo", reply_timeout=0.5)
    await mcp.client.close("first")
    # It waited in line, and is refused now that there is room.
    await mcp.until(lambda: mcp.logged("delivery", type="session.create", call_id="late", code="DEADLINE_EXCEEDED"))
    await mcp.client.create("next", "echo")
    assert {event.subject for event in mcp.of("created")} == {"first", "next"}


async def test_who_may_not_have_a_session_that_is_open_has_nobody_told_that_there_is_none(mcp: Cluster):
    await mcp.start()
    await mcp.client.create("c-1", "echo")
    with pytest.raises(SessionExists):
        await mcp.client.create("c-1", "echo", if_exists="reject")
    await mcp.client.close("c-1")
    await mcp.event("closed", session_id="c-1")  # what was told before it has come by now
    assert not mcp.of("rejected")
    assert not mcp.logged("session.rejected")
