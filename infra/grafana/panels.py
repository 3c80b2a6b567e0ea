"""The rows of the dashboard and their panels, each a query to Prometheus. ``dashboard`` draws them."""

from dataclasses import dataclass
from typing import Literal

from schemas.events import EndReason, SessionEventType

OURS = 'instance=~"$instance"'
"""The selector that limits a panel to the workers chosen at the top of the dashboard."""

RATE = "[$__rate_interval]"
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Query:
    """A query to Prometheus, and the name of each line of its answer."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel. ``unit`` is a unit of Grafana, ``width`` of 24; ``red`` is where the colour turns."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    about: str = ""
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8
    red: float | None = None
    bad_when: Literal["above", "below"] = "above"
    stacked: bool = False


def gauge(metric: str, by: str = "") -> Query:
    """Return the query for the sum of a gauge, for each of ``by``."""
    return Query(_sum(f"{metric}{{{OURS}}}", by), _legend(by) or "all workers")


def rate(metric: str, by: str = "", where: str = "", legend: str = "") -> Query:
    """Return the query for how often a counter increases per second, for each of ``by``."""
    chosen = ", ".join(filter(None, (OURS, where)))
    return Query(_sum(f"rate({metric}{{{chosen}}}{RATE})", by), legend or _legend(by) or "all workers")


def quantiles(metric: str, by: str = "", shares: tuple[float, ...] = QUANTILES) -> tuple[Query, ...]:
    """Return the queries for the median and the high percentiles of a duration."""
    rates = _sum(f"rate({metric}_bucket{{{OURS}}}{RATE})", f"{by}, le" if by else "le")
    return tuple(
        Query(f"histogram_quantile({share}, {rates})", f"{_legend(by)} p{share * 100:g}".strip()) for share in shares
    )


def _sum(expr: str, by: str) -> str:
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


def _legend(by: str) -> str:
    return " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",")) if by else ""


def _ended(event: SessionEventType, legend: str, by: str = "") -> Query:
    reasons = "|".join(reason.value for reason in EndReason if reason.event_type is event)
    return rate("mcp_sessions_ended_total", by, where=f'reason=~"{reasons}"', legend=legend)


def _depth(metric: str) -> Query:
    return Query(
        f'sum by (queue) (rabbitmq_detailed_{metric}{{queue!~".+\\\\.(requests|workers)\\\\..+|amq\\\\..+"}})',
        "{{queue}}",
    )


def _share_in_use() -> Query:
    return Query(f"sum(mcp_sessions_open{{{OURS}}}) / sum(mcp_sessions_limit{{{OURS}}})", "in use")


def _share_of_service() -> Query:
    shares = [f"sum by (service) ({metric}{{{OURS}}})" for metric in ("mcp_sessions_open", "mcp_sessions_capacity")]
    return Query(" / ".join(shares), "{{service}}")


ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel("Sessions open", (gauge("mcp_sessions_open"),), kind="stat", width=4),
        Panel("In use", (_share_in_use(),), "percentunit", "Share of the limit of all workers.", "stat", 4, red=0.85),
        Panel("Workers ready", (Query('max(mcp_sessions_workers{state="ready"})', "ready"),), kind="stat", width=4),
        Panel(
            "Connected to RabbitMQ",
            (Query(f"min(mcp_sessions_link_up{{{OURS}}})", "all of them"),),
            about="1: every worker.",
            kind="stat",
            width=4,
            red=1,
            bad_when="below",
        ),
        Panel(
            "Healthy",
            (Query(f"min(mcp_sessions_healthy{{{OURS}}})", "all of them"),),
            about="1 while the test messages of all workers come back.",
            kind="stat",
            width=4,
            red=1,
            bad_when="below",
        ),
        Panel(
            "Placers",
            (Query("sum(mcp_sessions_placer)", "placers"),),
            about="Exactly one worker places calls; none for a moment when it changes.",
            kind="stat",
            width=4,
            red=1,
            bad_when="below",
        ),
    ),
    "Calls and sessions": (
        Panel("Sessions open", (gauge("mcp_sessions_open", "service"),), stacked=True),
        Panel("In use, by service", (_share_of_service(),), "percentunit", "Share of the service's limit."),
        Panel("Sessions opened and ended", (rate("mcp_sessions_created_total", legend="opened"),
              rate("mcp_sessions_ended_total", "reason")), "ops"),
        Panel("Call events", (rate("mcp_sessions_call_events_total", "source, kind"),), "ops"),
        Panel("Starts of servers", (rate("mcp_sessions_starts_total", "kind, outcome"),), "ops"),
        Panel("Starts that fail, by service",
              (rate("mcp_sessions_starts_total", "service, outcome", 'outcome!="ok"'),), "ops"),
        Panel("Servers that died, by service", (_ended(SessionEventType.DIED, "{{service}}", "service"),), "ops"),
        Panel("Start of a server", quantiles("mcp_sessions_start_seconds", "kind"), "s"),
        Panel("Servers that wait for a call", (gauge("mcp_sessions_warm", "service"),)),
        Panel("Sessions that ended by themselves", (
            _ended(SessionEventType.EXPIRED, "expired"),
            _ended(SessionEventType.DIED, "died"),
            rate("mcp_sessions_lost_total", legend="lost"),
        ), "ops", "Expired: idle, or too old. Died: the server ended. Lost: the worker ended."),
        Panel("Restored sessions", (rate("mcp_sessions_created_total", "service", 'restored="true"'),), "ops",
              "Opened anew, on another worker."),
        Panel("How late sessions expire", quantiles("mcp_sessions_expiry_lateness_seconds"), "s"),
    ),
    "Tool calls": (
        Panel("Tool calls", (rate("mcp_sessions_tool_calls_total", "service, outcome"),), "ops"),
        Panel("Duration of a tool call", quantiles("mcp_sessions_tool_call_seconds", "service"), "s"),
        Panel("Tool calls in flight", (gauge("mcp_sessions_tool_calls_in_flight", "instance"),), stacked=True),
    ),
    "HTTP gateway": (
        Panel("Requests", (rate("mcp_sessions_http_requests_total", "route, status"),), "ops", width=12),
        Panel("Duration of a request", quantiles("mcp_sessions_http_request_seconds", "route", (0.5, 0.95)), "s",
              width=12),
    ),
    "Bridges": (
        Panel("Events of PBXs", (rate("mcp_sessions_bridge_events_total", "instance, outcome"),), "ops"),
        Panel("Connected to the PBX and to RabbitMQ", (
            Query(f"mcp_sessions_bridge_pbx_up{{{OURS}}}", "{{instance}} hears"),
            Query(f"mcp_sessions_bridge_link_up{{{OURS}}}", "{{instance}} is linked"),
        ), about="1 for each bridge with both connections."),
        Panel("Gaps", (Query(f"increase(mcp_sessions_bridge_gaps_total{{{OURS}}}[$__rate_interval])", "{{instance}}"),),
              about="How often a bridge was cut off from its PBX; its log says which events it missed."),
        Panel("Events that wait for RabbitMQ", (gauge("mcp_sessions_bridge_events_waiting", "instance"),), width=12),
        Panel("Calls that live", (gauge("mcp_sessions_bridge_calls", "instance"),), width=12),
    ),
    "Placing": (
        Panel("Placements", (rate("mcp_sessions_placements_total", "outcome"),), "ops"),
        Panel("Wait for a place", quantiles("mcp_sessions_placement_seconds"), "s", "Waiting for room included."),
        Panel("Rejected and waiting", (
            rate("mcp_sessions_rejected_total", "code"),
            Query("sum(mcp_sessions_admission_waiting)", "starts that wait for room"),
        ), about="Rejected starts per second, and starts that wait now."),
    ),
    "Messages": (
        Panel("Deliveries", (rate("mcp_sessions_deliveries_total", "type, outcome"),), "ops"),
        Panel("Errors", (rate("mcp_sessions_errors_total", "type, code"),), "ops", "By the code of the error."),
        Panel("From arrival to settling, p95", quantiles("mcp_sessions_delivery_seconds", "type", (0.95,)), "s"),
        Panel("Dead letters", (rate("mcp_sessions_dead_letters_total", "reason"),), "ops", "What cannot be handled."),
        Panel("Dead-letter bytes", (rate("mcp_sessions_dead_letter_bytes_total", "reason"),), "Bps", "Bounded in all."),
        Panel("Session events", (rate("mcp_sessions_events_published_total", "type"),), "ops"),
        Panel("Delay of a session event", quantiles("mcp_sessions_event_delay_seconds"), "s",
              "Until RabbitMQ has confirmed it."),
        Panel("Session events that wait for RabbitMQ", (gauge("mcp_sessions_events_waiting", "instance"),)),
    ),
    "Workers": (
        Panel("Reconnects", (rate("mcp_sessions_reconnects_total", "instance"),), "ops"),
        Panel("How late the event loop is", quantiles("mcp_sessions_loop_lag_seconds", "instance", (0.5, 0.99)), "s"),
        Panel("Workers by state", (Query("max by (state) (mcp_sessions_workers)", "{{state}}"),),
              about="As seen by the worker that knows most of them."),
    ),
    "RabbitMQ": (
        Panel("Messages that wait", (_depth("queue_messages_ready"),)),
        Panel("Messages that are held", (_depth("queue_messages_unacked"),),
              about="An inbox holds one message for each call of its worker: the call's recipe."),
        Panel("Consumers", (_depth("queue_consumers"),)),
    ),
}  # fmt: skip
"""The rows of the dashboard. Each metric of a worker is here or in ``NOT_SHOWN``; ``infra/checks`` verifies this."""

NOT_SHOWN: dict[str, str] = {}
"""Metrics that no panel uses, each with the reason."""
