"""One trace from the HTTP request to the MCP server."""

import pytest

from tests.gateway.conftest import call
from tests.gateway.test_life import client_of, started
from tests.harness import Cluster
from tests.observability.test_tracing import TRACED, collecting, way

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("command", [("gateway",), ("worker", "--gateway")], ids=" ".join)
async def test_the_trace_of_who_asks_over_http_leads_to_the_mcp_server(
    mcp: Cluster, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    async with collecting() as collector:
        export = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        for name, value in (export | {"OTEL_BSP_SCHEDULE_DELAY": "50"}).items():
            monkeypatch.setenv(name, value)
        server = {"command": TRACED, "env": {**export, "OTEL_SERVICE_NAME": "mcp-server"}, "start_timeout": 60}
        services = {"sums": server}
        alone = command == ("gateway",)
        if alone:
            await mcp.start({"services": services}, **export, OTEL_BSP_SCHEDULE_DELAY="50")
        process = await started(mcp, *command, services=services)
        http = await client_of(process)
        async with http:
            if not alone:
                await process.logged("worker.ready")
            assert (await call(http, "sums", "add", "c-1", arguments={"a": 1, "b": 1})).status_code == 200
            http.headers["traceparent"] = f"00-{TRACE}-{CALLER}-01"
            answer = await call(http, "sums", "add", "c-1", arguments={"a": 1, "b": 2})
            assert answer.json()["result"] == "3", answer.text
        adding = await collector.until("mcp-server", "adding", TRACE)
        service = "mcp-sessions-gateway" if alone else "mcp-sessions"
        for name in ("MCP send tools/call add", "tools/call add", "process tools.call"):
            await collector.until("mcp-sessions", name, TRACE)
        await collector.until("mcp-server", "tools/call add", TRACE)
        if alone:
            await collector.until(service, f"publish {mcp.prefix}.requests", TRACE)
        asked = await collector.until(service, ROUTE, TRACE)
        assert asked.parent_id == CALLER
        assert asked.attributes["http.route"] == ROUTE
        names = way(adding, collector.spans)
        assert names[-2:] == [ROUTE, CALLER]
        assert names[4] == "process tools.call"
        assert (f"publish {mcp.prefix}.requests" in names) is alone  # in one process there is no broker in between
        assert await process.terminate() == 0


ROUTE = "/services/{service}/call"
