"""An MCP server on the official SDK that exports its spans as ``OTEL_EXPORTER_OTLP_ENDPOINT`` says, each at once."""

from mcp.server.mcpserver import MCPServer
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

server = MCPServer("traced")


@server.tool()
def add(a: int, b: int) -> int:
    """The sum."""
    with trace.get_tracer("traced-server").start_as_current_span("adding"):
        return a + b


if __name__ == "__main__":
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    server.run()
