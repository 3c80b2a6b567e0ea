"""The gateway while the broker is away, while workers die, beside another gateway, and while it leaves."""

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from consumer.gateway import speech
from tests import programs
from tests.gateway.conftest import CREDENTIALS, PASSWORD, USER, Serve, call, served, soon
from tests.gateway.test_cases import SERVICES
from tests.harness import ECHO, START, Cluster, WorkerProcess, config
from tests.programs import PROGRAM
from tests.proxy import proxy_to, through

EVENT = {"call_id": "late", "kind": "started"}


async def test_while_the_broker_is_away_nothing_is_taken_and_all_is_well_when_it_is_back(mcp: Cluster) -> None:
    await mcp.start()
    url = mcp.url
    async with proxy_to(url) as proxy:
        mcp.url = through(url, proxy)
        async with served(mcp) as (_, http):
            mcp.url = url
            assert (await http.get("/readyz")).status_code == 200
            await proxy.close()
            await soon(lambda: is_ready(http, 503))
            for method, path, body in (
                ("POST", "/signalwire/events", EVENT),
                ("POST", "/services/echo/call", {"tool": "echo", "session_id": "c-1", "arguments": {"text": "x"}}),
                ("GET", "/sessions", None),
            ):
                began = time.monotonic()
                answer = await http.request(method, path, json=body)
                assert time.monotonic() - began < 20, path
                assert answer.status_code == 503, path
                assert answer.headers["retry-after"], path
                assert answer.json()["retryable"] is True, path
            assert (await http.get("/livez")).status_code == 200
            await proxy.start()
            await soon(lambda: is_ready(http, 200))
            assert (await http.post("/signalwire/events", json=EVENT)).status_code == 204
            await mcp.event("created", call_id="late")


async def test_who_waits_for_a_slow_start_in_vain_is_told_so(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"slow": {"command": [*ECHO, "--slow-start", "8"]}}))
    http = await serve(call_timeout=1)
    for _ in range(2):  # the first opens the session, the second waits for its turn
        late = await call(http, "slow", "echo", "c-1", arguments={"text": "x"})
        assert (late.status_code, late.json()["code"]) == (424, "DEADLINE_EXCEEDED")
        assert late.json()["error"] == (
            "tools.call echo: waited longer than its caller's timeout, and the server of slow was still starting; "
            "it was not executed"
        )
    late = await http.get("/services/slow/tools")
    assert (late.status_code, late.json()["code"]) == (503, "NO_REPLY")
    assert late.json()["error"].endswith(": the server may still be starting")


async def is_ready(http: httpx2.AsyncClient, status: int) -> bool:
    return (await http.get("/readyz")).status_code == status


async def test_without_a_worker_it_is_not_ready(mcp: Cluster, serve: Serve) -> None:
    http = await serve()
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["workers"] == 0


async def test_what_is_refused_because_no_worker_runs_is_not_executed_later(mcp: Cluster, serve: Serve) -> None:
    worker = await mcp.start()
    http = await serve()
    assert (await call(http, "echo", "counter", "c-1")).status_code == 200
    await worker.terminate()
    await soon(lambda: is_ready(http, 503))
    refused = await asyncio.gather(
        call(http, "echo", "counter", "c-2"),
        *(http.get(path) for path in ("/services", "/services/echo/tools", "/sessions")),
    )
    for answer in refused:
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json() == {
            "error": f"no worker runs under the prefix {mcp.prefix!r}; nothing was sent",
            "code": "NOT_ROUTED",
            "retryable": True,
            "details": {"reason": "no_worker"},
        }
    function = {"function": "counter", "call_id": "c-2", "argument": {"parsed": [{}]}}
    spoken = (await http.post("/signalwire/swaig/echo", json=function)).json()["response"]
    assert spoken == speech.BUSY
    rpc = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "counter", "arguments": {}}}
    answer = await http.post("/calls/c-2/echo/mcp", json=rpc, headers={"accept": "application/json"})
    assert (answer.status_code, answer.json()["error"]["data"]) == (503, {"code": "NOT_ROUTED", "retryable": True})
    await mcp.start()
    answer = await call(http, "echo", "counter", "c-2")
    assert answer.json()["result"] == '{"count": 1}'


async def test_a_worker_killed_under_a_tool_call_is_424_and_the_call_is_executed_once(
    mcp: Cluster, serve: Serve, tmp_path: Path
) -> None:
    executed = tmp_path / "executed"
    odd = SERVICES["odd"] | {"env": {"CHARGED": str(executed)}, "sandbox": {"kind": "none"}}
    owner = await mcp.start(config(services={"odd": odd}))
    http = await serve(call_timeout=3.0)
    assert (await call(http, "odd", "struct", "c-1")).status_code == 200
    await mcp.start(config(services={"odd": odd}))
    calling = asyncio.create_task(call(http, "odd", "hang", "c-1"))
    await soon(lambda: asyncio.sleep(0, executed.exists()))
    await owner.kill()
    answer = await calling
    assert answer.status_code == 424
    assert answer.json()["retryable"] is False
    await mcp.event("created", session_id="c-1", restored=True)
    assert (await call(http, "odd", "struct", "c-1")).status_code == 200  # whoever has taken over has had all there was
    assert executed.read_text().count("charged") == 1


async def test_two_gateways_make_no_difference(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    await mcp.start()
    gateways = [await serve(), await serve()]
    for turn in range(8):
        http = gateways[turn % 2]
        answer = await call(http, "echo", "counter", f"c-{turn % 3}")
        assert answer.status_code == 200, answer.text
    lists = [(await http.get("/sessions")).json() for http in gateways]
    assert set(lists[0]) == set(lists[1]) == {"c-0", "c-1", "c-2"}
    assert (await gateways[1].delete("/sessions/c-0")).status_code == 200
    assert (await gateways[0].delete("/sessions/c-0")).status_code == 404


async def test_what_runs_is_answered_before_the_gateway_leaves(mcp: Cluster) -> None:
    await mcp.start()
    async with served(mcp) as (gateway, http):
        await call(http, "echo", "echo", "c-1", arguments={"text": "x"})
        calling = asyncio.create_task(call(http, "echo", "sleep", "c-1", arguments={"seconds": 1}))
        await soon(lambda: asyncio.sleep(0, gateway.in_flight.count))
        leaving = asyncio.create_task(gateway.leave(10))
        await asyncio.sleep(0)
        refused = await http.get("/services")
        assert refused.status_code == 503
        assert (await http.get("/readyz")).status_code == 503
        assert (await calling).status_code == 200
        assert await leaving is True


@pytest.mark.parametrize(("sent", "status"), [(True, 424), (False, 503)], ids=["sent", "not sent"])
async def test_what_still_runs_when_the_gateway_closes_is_answered_and_logged_as_no_defect(
    mcp: Cluster, caplog: pytest.LogCaptureFixture, sent: bool, status: int
) -> None:
    worker = await mcp.start()
    async with served(mcp) as (gateway, http):
        if not sent:  # it waits for another worker
            await worker.terminate()
            await soon(lambda: is_ready(http, 503))
        asked = {"session_id": "c-1", "tool": "sleep", "arguments": {"seconds": 60}}
        calling = asyncio.create_task(http.post("/services/echo/call", json=asked))
        if sent:
            await mcp.event("created", session_id="c-1")
        await soon(lambda: asyncio.sleep(0, gateway.in_flight.count))
        assert await gateway.leave(0.1) is False
        await gateway.close()
        answer = await calling
    assert (answer.status_code, answer.json()["code"]) == (status, "BROKER_UNAVAILABLE")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []


# Processes.


async def started(
    mcp: Cluster,
    command: str,
    *options: str,
    parser: str = "httptools",
    services: dict[str, Any] | None = None,
    anew: bool = False,
    **gateway: object,
) -> WorkerProcess:
    """A worker with a gateway, or a gateway, as a process; with ``h11`` it finds no other parser."""
    hidden = "import sys; sys.modules['httptools'] = None; from consumer.cli import main; main(sys.argv[1:])"
    program = [PROGRAM] if parser == "httptools" else [sys.executable, "-c", hidden]
    path = mcp.folder / f"{command}-{len(mcp.workers)}.json"
    told = config(gateway={"port": 0, **CREDENTIALS, **gateway})
    path.write_text(json.dumps(told | ({"services": services} if services else {})))
    process = await programs.start(
        *program,
        command,
        *options,
        env=os.environ
        | {
            "AMQP_URL": mcp.url,
            "MCP_SESSIONS_CONFIG": str(path),
            "MCP_SESSIONS_PREFIX": mcp.prefix,
            "MCP_SESSIONS_LOG_FORMAT": "json",
        },
        cwd=mcp.folder,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
        anew=anew,
    )
    made = WorkerProcess(process, path.with_suffix(".log"), lambda: None)
    mcp.workers.append(made)
    return made


async def client_of(process: WorkerProcess) -> httpx2.AsyncClient:
    port = (await process.logged("gateway.listening", within=START))["port"]
    await process.logged("gateway.ready", within=START)
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", auth=(USER, PASSWORD), timeout=30)


async def test_the_command_serves_and_leaves_on_sigterm(mcp: Cluster) -> None:
    await mcp.start()
    process = await started(mcp, "gateway", anew=True)
    async with await client_of(process) as http:
        assert (await call(http, "echo", "echo", "c-1", arguments={"text": "x"})).json()["result"] == "x"
        with suppress(PermissionError):  # what the kernel says to all but root
            assert mcp.url.encode() not in Path(f"/proc/{process.process.pid}/environ").read_bytes()
    assert await process.terminate() == 0
    await process.logged("gateway.stopped")


async def test_a_worker_with_a_gateway_answers_its_own_calls_without_the_broker(mcp: Cluster) -> None:
    process = await started(mcp, "worker", "--gateway")
    async with await client_of(process) as http:
        told = [record["event"] for record in process.records]
        assert told.index("worker.ready") < told.index("gateway.ready")
        assert (await http.get("/readyz")).status_code == 200
        assert (await call(http, "echo", "echo", "c-1", arguments={"text": "first"})).status_code == 200
        assert 'mcp_sessions_open{service="echo"} 1.0' in (await http.get("/metrics")).text
        assert (await call(http, "echo", "echo", "c-1", arguments={"text": "second"})).json()["result"] == "second"
        await process.logged("delivery", type="tools.call", queue="in-process", call_id="c-1")
        # The rules are the owner's: an error, an idempotency key and a deadline are the same on this way.
        assert (await call(http, "echo", "nope", "c-1")).status_code == 404
        counted = [
            (
                await http.post(
                    "/services/echo/call",
                    json={"tool": "counter", "session_id": "c-1"},
                    headers={"idempotency-key": "once"},
                )
            ).json()["result"]
            for _ in range(2)
        ]
        assert counted[0] == counted[1]
    assert await process.terminate() == 0


async def test_a_call_of_another_worker_is_reached_over_the_broker(mcp: Cluster) -> None:
    other = await mcp.start()
    await mcp.client.create("elsewhere", "echo")
    process = await started(mcp, "worker", "--gateway")
    async with await client_of(process) as http:
        answer = await call(http, "echo", "echo", "elsewhere", arguments={"text": "over there"})
        assert answer.json()["result"] == "over there"
    assert other.records


async def test_an_address_that_is_taken_is_said_at_once(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve()
    for command, options in (("gateway", ()), ("worker", ("--gateway",))):
        process = await started(mcp, command, *options, port=http.base_url.port)
        assert await process.ended() == 2
        [told] = [record["error"] for record in process.records if record["event"] == "http.cannot_listen"]
        assert told.startswith(f"gateway: cannot listen on 127.0.0.1 port {http.base_url.port}: ")
        assert "already in use" in told
        assert "Errno" not in told


async def test_two_sigterms_of_a_platform_are_one_wish(mcp: Cluster) -> None:
    await mcp.start()
    process = await started(mcp, "gateway")
    async with await client_of(process) as http:
        await call(http, "echo", "echo", "c-1", arguments={"text": "x"})
        calling = asyncio.create_task(call(http, "echo", "sleep", "c-1", arguments={"seconds": 1}))
        await asyncio.sleep(0.2)
        for _ in range(2):
            process.process.send_signal(signal.SIGTERM)
        assert (await calling).status_code == 200
    assert await process.ended() == 0


@pytest.fixture(autouse=True)
def nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PORT", raising=False)
