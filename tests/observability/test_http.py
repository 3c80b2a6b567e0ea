"""``/livez``, ``/readyz`` and ``/metrics``, as whoever operates workers sees them."""

import asyncio
import socket
import subprocess
import sys

from infra.broker import PrivateBroker
from tests.faults.stage import faulty
from tests.harness import ROOT, Cluster, cluster, config
from tests.observability.conftest import watched


async def test_a_worker_is_ready_while_a_call_lives_and_not_while_the_broker_is_away(
    own_broker: PrivateBroker, prefix, clients
):
    async with cluster(own_broker.url, prefix) as mcp:
        worker = await watched(mcp, clients, faulty())
        assert await worker.until_ready(200) == {"ready": True, "state": "ready", "link": True, "probe": True}
        series = await worker.series()
        for name, label, value in (
            ("lost_total", "service", "echo"),
            ("rejected_total", "code", "capacity"),
            ("dead_letters_total", "reason", "unrecognised"),
        ):
            assert series[f"mcp_sessions_{name}", frozenset({(label, value)})] == 0, "or its first count is no increase"
        await mcp.client.create("call", "echo")
        assert await worker.value("open", service="echo") == 1
        assert await worker.value("capacity", service="echo") == 400

        await asyncio.to_thread(own_broker.stop_app)
        try:
            told = await worker.until_ready(503, link=False, state="connecting")
            assert told == {"ready": False, "state": "connecting", "link": False, "probe": False}
            assert (await worker.http.get("/livez")).status_code == 200
            assert await worker.value("link_up") == await worker.value("healthy") == 0
            assert await worker.value("open", service="echo") == 1
        finally:
            await asyncio.to_thread(own_broker.start_app)
        await worker.until_ready(200)
        assert await worker.value("link_up") == await worker.value("healthy") == 1
        assert await worker.value("reconnects_total") == 1


async def test_a_worker_that_drains_is_alive_and_not_ready(mcp: Cluster, clients):
    worker = await watched(mcp, clients, config())
    await worker.until_ready(200)
    await mcp.client.create("call", "echo")
    calling = asyncio.create_task(mcp.client.call_tool("call", "nap", {"seconds": 2}))
    await worker.until(lambda value: value == 1, "tool_calls_in_flight")
    leaving = asyncio.create_task(worker.worker.terminate())
    assert (await worker.until_ready(503))["state"] == "draining"
    assert (await worker.http.get("/livez")).text == "ok\n"
    assert await leaving == 0
    await asyncio.gather(calling, return_exceptions=True)


async def test_metrics_come_in_the_format_that_is_asked_for(mcp: Cluster, clients):
    worker = await watched(mcp, clients, config())
    plain = await worker.http.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE mcp_sessions_open gauge" in plain.text
    assert "process_resident_memory_bytes" in plain.text
    openmetrics = await worker.http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_a_port_that_is_taken_is_said_and_is_a_bad_configuration(mcp: Cluster):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = await mcp.spawn(config(worker={"http_port": port}))
        told = await worker.logged("http.cannot_listen")
        assert await worker.ended() == 2
    assert f"worker.http_port: cannot listen on 127.0.0.1 port {port}" in told["error"]


def test_what_serves_is_imported_only_when_it_has_a_port():
    code = "import sys, consumer.worker; assert 'consumer.observability.web' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)
