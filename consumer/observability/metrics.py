"""The metrics of a worker, for Prometheus. The help text of each says what it measures.

Labels have few values, known beforehand; nothing is labelled by call. Durations are seconds. Present values (open
sessions, present workers) are not counted: ``STATE`` asks its worker for them at each scrape.

A child of a labelled metric is looked up once and then remembered, see ``of``: counting costs a tool call a few
microseconds.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

REGISTRY = CollectorRegistry()
"""The registry with every metric below, and no other."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, to say when the worker started

OTHER = "other"
"""The label value for unknown names."""

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Declared:
    """A declared metric, for the docs and the dashboard."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    labels: tuple[str, ...]
    sentence: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its time series, as queries use them."""
        parts = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return tuple(self.name + part for part in parts)


DECLARED: list[Declared] = []
"""Every metric, in the order of this module."""


def _declare(kind: Literal["counter", "histogram", "gauge"], name: str, sentence: str, *labels: str) -> Declared:
    DECLARED.append(Declared(f"mcp_sessions_{name}", kind, labels, sentence))
    return DECLARED[-1]


def _counter(name: str, sentence: str, *labels: str) -> Counter:
    return Counter(_declare("counter", name, sentence, *labels).name, sentence, labels, registry=REGISTRY)


def _seconds(name: str, sentence: str, *labels: str) -> Histogram:
    name = _declare("histogram", f"{name}_seconds", sentence, *labels).name
    return Histogram(name, sentence, labels, registry=REGISTRY, buckets=_BUCKETS)


def _look(name: str, sentence: str, *labels: str) -> dict[str, Declared]:
    return {"gauge": _declare("gauge", name, sentence, *labels)}


# What comes in.

DELIVERIES = _counter(
    "deliveries_total",
    "How many messages were taken from queues, by outcome: the same word as in the message's log line, such as "
    "opened, not_opened, failed or dead_lettered",
    "type",
    "outcome",
)
ERRORS = _counter(
    "errors_total",
    "How many requests and other messages failed with an error, by its code. Dead letters are not among them",
    "type",
    "code",
)
DELIVERY = _seconds("delivery", "How long messages took from their arrival until they were settled", "type")
CALL_EVENTS = _counter(
    "call_events_total",
    "How many raw call events came in, by platform and kind: started, progress, ended, ignored (does not "
    "concern the life of a call) or unrecognised",
    "source",
    "kind",
)
DEAD_LETTERS = _counter("dead_letters_total", "How many messages became dead letters, by reason", "reason")
DEAD_LETTER_BYTES = _counter("dead_letter_bytes_total", "How many bytes became dead letters, by reason", "reason")

# Finding a worker.

PLACEMENTS = _counter(
    "placements_total",
    "How many messages for calls without an owner this worker handled as the placer, by decision",
    "outcome",
)
PLACEMENT = _seconds("placement", "How long calls waited until the placer had a worker for them, admission included")
REJECTED = _counter(
    "rejected_total", "How many sessions could not be opened, for lack of room or another reason", "code"
)
LOST = _counter("lost_total", "How many sessions were lost with their worker, as the placer reported", "service")

# Sessions.

STARTS = _counter(
    "starts_total",
    "How many servers were started for sessions: cold, taken from the warm ones, or forked; and the outcome: ok "
    "or the code of the error",
    "service",
    "kind",
    "outcome",
)
START = _seconds("start", "How long sessions waited for their server", "service", "kind")
CREATED = _counter(
    "created_total", "How many sessions were opened, and whether they replace a lost one", "service", "restored"
)
ENDED = _counter("ended_total", "How many sessions ended, by reason", "service", "reason")
EXPIRY_LATENESS = _seconds("expiry_lateness", "How late sessions expired")

# Tool calls.

TOOL_CALLS = _counter(
    "tool_calls_total",
    "How many tool calls were answered: ok, tool_error (the tool itself said so) or the code of the error",
    "service",
    "outcome",
)
TOOL_CALL = _seconds("tool_call", "How long MCP servers took for tool calls", "service")

# The HTTP gateway.

HTTP_REQUESTS = _counter(
    "http_requests_total", "How many requests the HTTP gateway has answered, by route and status", "route", "status"
)
HTTP_REQUEST = _seconds("http_request", "How long the HTTP gateway took for requests", "route")

# The bridge beside a PBX.

BRIDGE_EVENTS = _counter(
    "bridge_events_total",
    "How many events of its PBX a bridge handled: published (the broker has confirmed them), ignored (they do "
    "not concern the life of a call), made_up (by the bridge, for events that it missed), over (dropped for lack of "
    "room, because a later event made them needless) and lost (dropped for lack of room)",
    "outcome",
)
BRIDGE_GAPS = _counter("bridge_gaps_total", "How many times a bridge was cut off from its PBX")

# What goes out, and how the worker feels.

EVENTS_PUBLISHED = _counter("events_published_total", "How many events the broker has confirmed", "type")
EVENT_DELAY = _seconds("event_delay", "How long events took until the broker had confirmed them")
RECONNECTS = _counter("reconnects_total", "How many times a link to the broker was restored")
LOOP_LAG = _seconds("loop_lag", "How late the event loop runs scheduled callbacks")


@dataclass(frozen=True, slots=True)
class State:
    """The gauges of a worker: each one value, or one for each value of its label."""

    open: Mapping[str, int] = field(metadata=_look("open", "How many sessions are open on this worker", "service"))
    capacity: Mapping[str, int] = field(
        metadata=_look(
            "capacity",
            "How many sessions of one service may be open on this worker. All services together have "
            "mcp_sessions_limit",
            "service",
        )
    )
    limit: int = field(metadata=_look("limit", "How many sessions may be open on this worker, of all services"))
    warm: Mapping[str, int] = field(metadata=_look("warm", "How many processes wait for a call", "service"))
    tool_calls_in_flight: int = field(metadata=_look("tool_calls_in_flight", "How many tool calls are being executed"))
    admission_waiting: int = field(metadata=_look("admission_waiting", "How many starts wait for room at this placer"))
    link_up: bool = field(metadata=_look("link_up", "1 while there is a link to the broker"))
    events_waiting: int = field(metadata=_look("events_waiting", "How many events wait for the broker"))
    placer: bool = field(metadata=_look("placer", "1 while this worker is the placer"))
    workers: Mapping[str, int] = field(
        metadata=_look("workers", "How many workers this worker knows, including itself", "state")
    )
    healthy: bool = field(
        metadata=_look("healthy", "1 while the worker's messages to itself come back through RabbitMQ")
    )


@dataclass(frozen=True, slots=True)
class BridgeState:
    """The gauges of a bridge."""

    pbx_up: bool = field(metadata=_look("bridge_pbx_up", "1 while a bridge is connected to its PBX"))
    link_up: bool = field(metadata=_look("bridge_link_up", "1 while a bridge has a link to the broker"))
    events_waiting: int = field(
        metadata=_look("bridge_events_waiting", "How many events of a bridge wait for the broker")
    )
    calls: int = field(metadata=_look("bridge_calls", "How many live calls of its PBX a bridge knows"))


S = TypeVar("S", State, BridgeState)


class _States(Collector, Generic[S]):
    """Gauges that are read at each scrape. They have no values while no worker or bridge supplies them."""

    def __init__(self, kind: type[S]) -> None:
        self._kind: type[S] = kind
        self._read: Callable[[], S] | None = None

    @contextmanager
    def supplied_by(self, read: Callable[[], S]) -> Iterator[None]:
        """Show what ``read`` returns at each scrape within this block."""
        self._read = read
        try:
            yield
        finally:
            self._read = None

    def describe(self) -> Iterator[Metric]:
        for one in fields(self._kind):
            yield _gauge(one.metadata["gauge"])

    def collect(self) -> Iterator[Metric]:
        state = self._read() if self._read is not None else None
        for one in fields(self._kind):
            gauge = _gauge(one.metadata["gauge"])
            match getattr(state, one.name, None):
                case None:
                    pass
                case Mapping() as values:
                    for label, value in values.items():
                        gauge.add_metric([label], value)
                case value:
                    gauge.add_metric([], value)
            yield gauge


def _gauge(declared: Declared) -> GaugeMetricFamily:
    return GaugeMetricFamily(declared.name, declared.sentence, labels=declared.labels)


STATE = _States(State)
"""The gauges of the worker in this process, if there is one."""

BRIDGE = _States(BridgeState)
"""The gauges of the bridge in this process, if there is one."""

REGISTRY.register(STATE)
REGISTRY.register(BRIDGE)

M = TypeVar("M", bound=MetricWrapperBase)


@cache
def of(metric: M, *values: str) -> M:
    """Return the child of a labelled metric for these values, in the order of its labels.

    Pass only known, few values.
    """
    return metric.labels(*values)
