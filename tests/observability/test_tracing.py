"""One trace from whoever publishes to the MCP server, over each hop between them."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from consumer.observability import tracing
from tests.harness import ROOT, WAIT, Cluster, config

TRACED = [sys.executable, str(ROOT / "tests" / "servers" / "traced_server.py")]


@dataclass(frozen=True)
class Span:
    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any] = field(default_factory=dict)


class Collector:
    """Takes spans over OTLP, as any collector does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.endpoint = ""
        self._news = asyncio.Event()

    async def take(self, request: Request) -> Response:
        told = ExportTraceServiceRequest.FromString(await request.body())
        for resource in told.resource_spans:
            known = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for one in scope.spans:
                    attributes = {item.key: item.value.string_value for item in one.attributes}
                    ids = (one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex())
                    self.spans.append(Span(known["service.name"], one.name, *ids, attributes))
        self._news.set()
        return Response(status_code=200)

    async def until(self, service: str, name: str, trace_id: str, **attributes: str) -> Span:
        async with asyncio.timeout(2 * WAIT):
            while True:
                self._news.clear()
                for span in self.spans:
                    fits = (span.service, span.name, span.trace_id) == (service, name, trace_id)
                    if fits and span.attributes | attributes == span.attributes:
                        return span
                await self._news.wait()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = Starlette(routes=[Route("/v1/traces", collector.take, methods=["POST"])])
    server = _Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        collector.endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        serving = asyncio.create_task(server.serve(sockets=[listening]), name="collector")
        try:
            yield collector
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    """Spans of this process are recorded; a process has one provider for good, and this test has to give it back."""
    made = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", made)
    monkeypatch.setattr(tracing, "_tracer", made.get_tracer("mcp-sessions"))
    yield made
    made.shutdown()


@pytest.fixture
def own(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def ids_of(span: trace.Span) -> tuple[str, str]:
    found = span.get_span_context()
    return trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id)


def way(span: Span, spans: list[Span]) -> list[str]:
    """The names from a span up to the first that is not among ``spans``, and that one's id."""
    by_id = {one.span_id: one for one in spans}
    names = []
    while True:
        names.append(span.name)
        if span.parent_id not in by_id:
            return [*names, span.parent_id]
        span = by_id[span.parent_id]


@pytest.mark.timeout(240)
async def test_one_trace_leads_from_the_publisher_to_the_mcp_server(mcp: Cluster, own: InMemorySpanExporter):
    async with collecting() as collector:
        export = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        service = {"command": TRACED, "env": {**export, "OTEL_SERVICE_NAME": "mcp-server"}, "start_timeout": 60}
        worker = await mcp.start({"services": {"sums": service}}, **export, OTEL_BSP_SCHEDULE_DELAY="50")
        with trace.get_tracer("test").start_as_current_span("a call rings") as ringing:
            await mcp.client.publish_call_event({"call_id": "c-1", "kind": "started"})
            await mcp.event("created", session_id="c-1", within=60)
            answer = await mcp.client.call_tool("c-1", "add", {"a": 1, "b": 2})
            assert answer.text == "3"
        trace_id, _ = ids_of(ringing)

        publishing = {span.name: trace.format_span_id(span.context.span_id) for span in own.get_finished_spans()}
        server_span = await collector.until("mcp-server", "adding", trace_id)
        await collector.until("mcp-sessions", "process tools.call", trace_id)
        assert way(server_span, collector.spans) == [
            "adding",
            "tools/call add",  # the server's own, of the SDK
            "MCP send tools/call add",
            "tools/call add",
            "process tools.call",
            publishing[f"publish {mcp.prefix}.requests"],
        ]
        start = await collector.until("mcp-sessions", "start sums", trace_id)
        await collector.until("mcp-sessions", "process call_event", trace_id)
        assert start.attributes["mcp_sessions.start_kind"] == "cold"
        assert way(start, collector.spans) == [
            "start sums",
            "process call.started",  # the owner
            "publish call.started",
            "process call.started",  # the placer
            f"publish {mcp.prefix}.sessions",
            "process call_event",  # the intake
            publishing[f"publish {mcp.prefix}.calls"],
        ]
        placing = await collector.until("mcp-sessions", "place", trace_id)
        assert way(placing, collector.spans)[1] == "process call.started"
        hop = await collector.until("mcp-sessions", f"publish {mcp.prefix}.sessions", trace_id)
        assert hop.attributes["messaging.system"] == "rabbitmq"
        assert hop.attributes["messaging.rabbitmq.destination.routing_key"] == "c-1"
        logged = await worker.logged("delivery", type="tools.call", trace_id=trace_id)
        assert logged["span_id"] == (await collector.until("mcp-sessions", "process tools.call", trace_id)).span_id
        assert await worker.terminate() == 0


async def test_the_context_passes_through_a_worker_that_exports_nothing(mcp: Cluster, provider: TracerProvider):
    await mcp.start(config())
    await mcp.client.create("c-1", "echo")
    with trace.get_tracer("test").start_as_current_span("asking") as asking:
        answer = await mcp.client.call_tool("c-1", "meta")
    meta = answer.structured_content["meta"]
    assert meta["traceparent"].split("-")[1] == ids_of(asking)[0]
    assert meta["call_id"] == "c-1"


async def test_an_exporter_that_is_not_there_is_a_bad_configuration(mcp: Cluster):
    worker = await mcp.spawn(config(), OTEL_TRACES_EXPORTER="carrier-pigeon")
    told = await worker.logged("tracing.no_exporter")
    assert "carrier-pigeon" in told["error"]
    assert await worker.ended() == 2
