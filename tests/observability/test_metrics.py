"""Every metric exists and moves: one run that provokes each, on two workers and a broker that goes away."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from consumer.broker.message import Message
from consumer.observability.metrics import DECLARED, Declared
from infra.broker import PrivateBroker
from schemas.errors import McpError, OutcomeUnknown, ServiceNotFound, SessionsError, StartFailed
from tests.faults.stage import faulty
from tests.harness import ECHO, OPEN, Cluster, cluster
from tests.observability.conftest import Watched, watched

ROOM = 12
"""Sessions that the worker may have."""

FIXED = {"mcp_sessions_capacity", "mcp_sessions_limit"}
"""What only another configuration changes."""

OF_BRIDGES = "mcp_sessions_bridge_"
"""What a worker has nothing to tell of; ``tests/bridges`` moves it."""


def configuration() -> dict[str, Any]:
    forked = [sys.executable, "-S", str(Path(ECHO[-1]))]
    return faulty(
        services={
            "echo": {"command": ECHO, "sandbox": OPEN},
            "warm": {"command": ECHO, "warm": {"min": 1, "max": 1}},
            "forked": {"command": forked, "fork_server": "echo_server:main"},
            "broken": {"command": ["false"]},
        },
        session={"max_total_sessions": ROOM},
        worker={"admission_wait": 2},
    ) | {"routes": [{"match": {"to": "nowhere"}, "services": []}, {"services": ["echo"]}]}


async def requests(worker: Watched, clients: list[httpx2.AsyncClient]) -> None:
    """Somebody asks over HTTP."""
    port = (await worker.worker.logged("gateway.listening"))["port"]
    assert (await clients[0].get(f"http://127.0.0.1:{port}/health")).status_code == 200
    await worker.until(lambda value: value == 1, "http_requests_total", route="/health", status="200")


async def calls(mcp: Cluster, worker: Watched) -> None:
    """Calls come and go, and one message that nobody can read."""
    for kind in ("started", "progress", "ended"):
        await mcp.client.publish_call_event({"call_id": "c-1", "kind": kind})
        await worker.until(lambda value: value == 1, "call_events_total", source="custom", kind=kind)
    await mcp.event("closed", session_id="c-1")
    await mcp.client.publish_call_event({"call_id": "c-2", "kind": "started", "to": "nowhere", "source": "pbx-17"})
    await worker.until(lambda value: value == 1, "placements_total", outcome="no_route")
    assert await worker.value("call_events_total", source="other", kind="started") == 1
    await mcp.client.publish_call_event(b"nonsense")
    await worker.until(lambda value: value == 1, "dead_letters_total", reason="unrecognised")
    assert await worker.value("call_events_total", source="other", kind="unrecognised") == 1
    await mcp.client._connection._publisher.publish(
        Message(b"{}", type="no.such.type"), mcp.client.names.sessions, "c-3"
    )
    await worker.until(lambda value: value == 1, "deliveries_total", type="other", outcome="dead_lettered")


async def sessions(mcp: Cluster, worker: Watched) -> None:
    """Sessions of each kind, and what may become of them and of their tool calls."""
    await worker.until(lambda value: value == 1, "warm", service="warm")
    for service, kind in (("echo", "cold"), ("warm", "warm"), ("forked", "forked")):
        await mcp.client.create(f"s-{service}", service)
        assert await worker.value("starts_total", service=service, kind=kind, outcome="ok") >= 1
        assert await worker.value("start_seconds_count", service=service, kind=kind) >= 1
    with pytest.raises(StartFailed):
        await mcp.client.create("s-broken", "broken")
    assert await worker.value("starts_total", service="broken", kind="cold", outcome="start_failed") == 1
    assert await worker.value("rejected_total", code="start_failed") == 1
    assert await worker.value("errors_total", type="session.create", code="start_failed") == 1
    with pytest.raises(ServiceNotFound):
        await mcp.client.create("s-nobody", "nobody")
    assert await worker.value("errors_total", type="session.create", code="service_not_found") == 1

    await mcp.client.call_tool("s-echo", "echo", {"text": "hello"})
    assert (await mcp.client.call_tool("s-echo", "fail")).is_error
    with pytest.raises(McpError):
        await mcp.client.call_tool("s-echo", "error")
    for outcome in ("ok", "tool_error", "mcp_error"):
        assert await worker.value("tool_calls_total", service="echo", outcome=outcome) == 1
    slow = asyncio.create_task(mcp.client.call_tool("s-echo", "nap", {"seconds": 1}))
    await worker.until(lambda value: value == 1, "tool_calls_in_flight")
    await slow
    assert await worker.value("tool_calls_in_flight") == 0

    with pytest.raises(OutcomeUnknown):
        await mcp.client.call_tool("s-forked", "die")
    await mcp.event("died", session_id="s-forked")
    await mcp.client.create("s-short", "echo", timeout=0.3)
    await mcp.event("expired", session_id="s-short")
    for service, reason in (("forked", "process_exit"), ("echo", "idle")):
        assert await worker.value("ended_total", service=service, reason=reason) == 1


async def crowd(mcp: Cluster, worker: Watched) -> None:
    """More starts than there is room."""
    creating = [asyncio.create_task(mcp.client.create(f"crowd-{n}", "echo")) for n in range(ROOM + 1)]
    await worker.until(lambda value: value > 0, "admission_waiting")
    results = await asyncio.gather(*creating, return_exceptions=True)
    assert {one.code.value for one in results if isinstance(one, SessionsError)} == {"CAPACITY"}
    assert await worker.value("rejected_total", code="capacity") >= 1
    assert await worker.value("placements_total", outcome="failed") >= 1


async def death(mcp: Cluster, worker: Watched) -> None:
    """A second worker comes, gets a call, and is killed."""
    victim = await mcp.start(configuration())
    await worker.until(lambda value: value == 2, "workers", state="ready")
    assert (await mcp.client.create("orphan", "echo")).worker_id == victim.worker_id
    for n in range(ROOM):
        await mcp.client.close(f"crowd-{n}")
    await victim.kill()
    await mcp.event("created", session_id="orphan", restored=True)
    assert await worker.value("lost_total", service="echo") == 1
    assert await worker.value("created_total", service="echo", restored="true") == 1
    assert await worker.value("placements_total", outcome="restored") == 1
    await worker.until(lambda value: value == 0, "workers", state="draining")


async def outage(mcp: Cluster, worker: Watched, broker: PrivateBroker) -> None:
    """The broker goes away, something happens meanwhile, and it is back."""
    await mcp.client.create("meanwhile", "echo")
    server = psutil.Process((await mcp.client.call_tool("meanwhile", "cwd")).structured_content["pid"])
    await asyncio.to_thread(broker.stop_app)
    try:
        await worker.until(lambda value: value == 0, "link_up")
        server.kill()  # its end is told when the broker is back
        await worker.until(lambda value: value > 0, "events_waiting")
    finally:
        await asyncio.to_thread(broker.start_app)
    await worker.until_ready(200)
    await worker.until(lambda value: value == 0, "events_waiting")
    assert await worker.value("reconnects_total") == 1


def moved(worker: Watched, one: Declared) -> bool:
    values = worker.seen[one.series[-1]]
    if one.name in FIXED:
        return max(values) > 0
    # A counter that is not there yet is at nothing; a gauge must have been seen with two values.
    return len(values | ({0.0} if one.kind != "gauge" else set())) > 1


@pytest.mark.timeout(180)
async def test_every_metric_moves(own_broker: PrivateBroker, prefix, clients):
    async with cluster(own_broker.url, prefix) as mcp:
        worker = await watched(mcp, clients, configuration(), "--gateway", MCP_SESSIONS_GATEWAY_PORT="0")
        await worker.until_ready(200)
        await worker.series()
        await requests(worker, clients)
        await calls(mcp, worker)
        await sessions(mcp, worker)
        await crowd(mcp, worker)
        await death(mcp, worker)
        await outage(mcp, worker, own_broker)
        assert not [one.name for one in DECLARED if not (one.name.startswith(OF_BRIDGES) or moved(worker, one))]
        labelled = {label for one in DECLARED for label in one.labels}
        assert labelled.isdisjoint({"call_id", "session_id", "worker_id"})


async def test_deliveries_are_counted_by_the_words_of_the_log(mcp: Cluster, clients):
    broken = {"services": {"echo": {"command": ECHO}, "broken": {"command": ["false"]}}}
    routes = {"routes": [{"match": {"to": "nowhere"}, "services": ["broken"]}, {"services": ["echo"]}]}
    worker = await watched(mcp, clients, broken | routes)
    for call_id, to in (("good", "us"), ("bad", "nowhere")):
        await mcp.client.publish_call_event({"call_id": call_id, "kind": "started", "to": to, "source": "pbx-17"})
    for outcome, call_id in (("opened", "good"), ("not_opened", "bad")):
        await worker.until(lambda value: value == 1, "deliveries_total", type="call.started", outcome=outcome)
        assert (await worker.worker.logged("delivery", type="call.started", outcome=outcome))["call_id"] == call_id
    # A source that anybody may make up is a field of the line, and no label.
    assert await worker.value("deliveries_total", type="call_event", outcome="translated") == 2
    line = await worker.worker.logged("delivery", outcome="translated", call_id="good")
    assert (line["source"], line["kind"]) == ("pbx-17", "started")
