"""Exports spans as OpenTelemetry's own environment variables say. Needs the extra ``otel``.

``OTEL_EXPORTER_OTLP_ENDPOINT`` is enough. ``OTEL_TRACES_EXPORTER`` names exporters (``otlp``, ``console``, ``none``, or
any that is installed), ``OTEL_EXPORTER_OTLP_PROTOCOL`` is ``http/protobuf`` unless said otherwise, and everything else
(``OTEL_TRACES_SAMPLER``, ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_BSP_*``, ...) is read by the SDK itself.
"""
# ruff: noqa: PLC0415 - the SDK is there for those who want it only

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points

import structlog
from opentelemetry import trace
from opentelemetry.trace import ProxyTracerProvider

log = structlog.get_logger(__name__)

FLUSH_TIMEOUT = 2.0
"""How long (s) the last spans may take at the end. An absent collector must not hold up the worker."""


class NoExporter(Exception):
    """Spans are requested, but cannot be exported; the message says what is missing."""


def _wanted() -> list[str]:
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    names = os.environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if endpoint else "none")
    return [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]


@contextmanager
def exporting(service: str, version: str) -> Iterator[None]:
    """Export spans within this block, if the environment says so and no provider is set yet.

    Raises:
        NoExporter: the environment names an exporter that is not installed.
    """
    names = _wanted()
    if not names or not isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        yield
        return
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise NoExporter("tracing needs the extra 'otel': pip install 'mcp-sessions[otel]'") from error
    given = OTELResourceDetector().detect().attributes
    provider = TracerProvider(
        resource=Resource.create({"service.name": service, "service.version": version, **given}), shutdown_on_exit=False
    )
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(_exporter(name)()))
    trace.set_tracer_provider(provider)
    log.info("tracing.exporting", exporters=names)
    try:
        yield
    finally:
        flushing = threading.Thread(target=provider.shutdown, name="tracing-flush", daemon=True)
        flushing.start()
        flushing.join(FLUSH_TIMEOUT)


def _exporter(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a class of a package that may not be there
    protocol = (
        os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    own = {"otlp": "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"}.get(name, name)
    for one in entry_points(group="opentelemetry_traces_exporter", name=own):
        return one.load()
    raise NoExporter(
        f"OTEL_TRACES_EXPORTER: no exporter {own!r} is installed; 'mcp-sessions[otel]' brings otlp over HTTP"
    )
