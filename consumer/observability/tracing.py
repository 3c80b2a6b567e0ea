"""Spans along the way of a call: publishing, each hop over the broker, placing, starting, the tool call.

On OpenTelemetry's API, which the MCP SDK brings; the names follow its conventions for messaging. The context travels as
W3C ``traceparent`` and ``tracestate`` in AMQP headers, and the MCP SDK hands it on in ``_meta``. Without a configured
SDK there are no spans. A message without a context then costs a few look-ups, and one with a context keeps it.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, ProxyTracerProvider, Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from consumer.observability.logs import also_log

T = TypeVar("T")

Headers = Mapping[str, object]
Attributes = Mapping[str, AttributeValue]

_tracer = trace.get_tracer("mcp-sessions")
_FIELDS = tuple(propagate.get_global_textmap().fields)
_NO_SPAN: AbstractContextManager[Span] = nullcontext(INVALID_SPAN)
_NO_HEADERS: AbstractContextManager[Mapping[str, str]] = nullcontext({})


def _configured() -> bool:
    return not isinstance(trace.get_tracer_provider(), ProxyTracerProvider)


def traced() -> bool:
    """Return whether the current task is part of a trace."""
    return trace.get_current_span().get_span_context().is_valid


def carrier() -> dict[str, str]:
    """Return the headers that carry the current trace context."""
    found: dict[str, str] = {}
    if traced():
        propagate.inject(found)
    return found


def span(name: str, attributes: Attributes | None = None) -> AbstractContextManager[Span]:
    """Open a span for a step of our own, within the current span."""
    if not traced():
        return _NO_SPAN
    return trace.use_span(_tracer.start_span(name, attributes=attributes), end_on_exit=True)


def publishing(
    message_type: str | None, exchange: str, routing_key: str, message_id: str, *, begin: bool
) -> AbstractContextManager[Mapping[str, str]]:
    """Publish within this block, with the yielded headers. A trace begins here only with ``begin``."""
    if not traced() and not (begin and _configured()):
        return _NO_HEADERS
    publish = _tracer.start_span(
        f"publish {exchange or message_type}",  # queues of one worker or one client are too many names
        kind=SpanKind.PRODUCER,
        attributes={
            "messaging.system": "rabbitmq",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": exchange or routing_key,
            "messaging.rabbitmq.destination.routing_key": routing_key,
            "messaging.message.id": message_id,
        },
    )
    return _within(publish)


@contextmanager
def _within(publish: Span) -> Iterator[Mapping[str, str]]:
    with trace.use_span(publish, end_on_exit=True):
        yield carrier()


def processing(
    kind: str, headers: Headers, queue: str, message_id: str, received_at: float, *, begin: bool
) -> AbstractContextManager[Span]:
    """Handle a delivery of ``received_at`` (monotonic) within this block.

    Without a context, ``begin`` starts a trace.
    """
    came = {name: value for name in _FIELDS if isinstance(value := headers.get(name), str)} if headers else {}
    if not came and not (begin and _configured()):
        return _NO_SPAN
    process = _tracer.start_span(
        f"process {kind}",
        context=propagate.extract(came, context=Context()),
        kind=SpanKind.CONSUMER,
        attributes={
            "messaging.system": "rabbitmq",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": queue,
            "messaging.message.id": message_id,
        },
        start_time=time.time_ns() - round((time.monotonic() - received_at) * 1e9),
    )
    return trace.use_span(process, end_on_exit=True)


def serving(method: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
    """Answer an HTTP request within this block, which continues the sender's trace."""
    if not _configured():
        return _NO_SPAN
    came = {name: value for name in _FIELDS if (value := headers.get(name)) is not None}
    serve = _tracer.start_span(
        method,
        context=propagate.extract(came, context=Context()),
        kind=SpanKind.SERVER,
        attributes={"http.request.method": method},
    )
    return trace.use_span(serve, end_on_exit=True)


def served(current: Span, route: str, status: int) -> None:
    """Record the route and the status of a request."""
    current.update_name(route)
    current.set_attributes({"http.route": route, "http.response.status_code": status})
    if status >= 500:
        failed(current, str(status))


def failed(current: Span, error_type: str, problem: str = "") -> None:
    """Mark the current span as failed. ``error_type`` must be one of few words."""
    current.set_attribute("error.type", error_type)
    current.set_status(Status(StatusCode.ERROR, problem or error_type))


def carried(work: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    """Return ``work`` for another task, with the trace context of the current one."""
    if not traced():
        return work
    here = context.get_current()

    async def carry() -> T:
        token = context.attach(here)
        try:
            return await work()
        finally:
            context.detach(token)

    return carry


def _ids() -> Mapping[str, str]:
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    return {"trace_id": trace.format_trace_id(found.trace_id), "span_id": trace.format_span_id(found.span_id)}


also_log(_ids)
