"""Checks alerts and dashboard: Prometheus and Grafana can read them, and their metrics exist."""

import importlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser

import infra.grafana.dashboard
from infra.checks.common import ROOT, Faults, complaints, note, read_yaml
from infra.checks.promtool import find_promtool
from infra.grafana.panels import NOT_SHOWN

ALERTS = Path("infra/prometheus/alerts.yaml")
CONFIG = Path("infra/prometheus/prometheus.yaml")
COMPOSE = Path("infra/compose.yaml")
TRIED = Path("infra/prometheus/alerts.test.yaml")
DASHBOARD = Path("infra/grafana/dashboards/mcp-sessions.json")
SCALING = Path("infra/kubernetes/scaledobject.yaml")
PAGE = Path("docs/operations/alerts.md")

METRICS = "consumer.observability.metrics"
OURS = "mcp_sessions_"
OTHERS = {
    "up",
    "rabbitmq_detailed_queue_consumers",
    "rabbitmq_detailed_queue_messages_ready",
    "rabbitmq_detailed_queue_messages_unacked",
}
"""Metrics of Prometheus itself, and of RabbitMQ 4.0.5 at ``/metrics/detailed``."""

VARIABLES = {"$__rate_interval": "5m", "$instance": ".+"}
"""The values of Grafana's variables in the checked expressions."""


def rules(root: Path = ROOT) -> Iterator[dict[str, Any]]:
    """Yield every alert."""
    for group in read_yaml(root / ALERTS)["groups"]:
        yield from group["rules"]


def alerts(root: Path = ROOT) -> Faults:
    """Check that every alert can be read, has a scenario, and links to its section."""
    tried = (root / TRIED).read_text()
    for rule in rules(root):
        name = rule["alert"]
        if set(rule) - {"alert", "expr", "for", "labels", "annotations"}:
            yield f"{ALERTS}: {name} has fields that no alert needs"
        if rule["labels"].get("severity") not in ("critical", "warning"):
            yield f"{ALERTS}: {name} is neither critical nor a warning"
        if rule["annotations"].get("runbook_url") != f"{PAGE}#{name.lower()}":
            yield f"{ALERTS}: {name} has no runbook_url to its section"
        try:
            promql_parser.parse(rule["expr"])
        except ValueError as error:
            yield f"{ALERTS}: {name}: {error}"
        if name not in tried:
            yield f"{TRIED}: {name} has no scenario that makes it fire"
    if promtool := find_promtool():
        yield from complaints(str(CONFIG), promtool, "check", "config", root / CONFIG)
        yield from complaints(str(TRIED), promtool, "test", "rules", root / TRIED)


def scraping(root: Path = ROOT) -> Faults:
    """Check that Prometheus finds workers and gateways of the Compose file, and can read its credentials."""
    services = read_yaml(root / COMPOSE)["services"]
    jobs = read_yaml(root / CONFIG)["scrape_configs"]
    found = {name for job in jobs for one in job.get("dns_sd_configs", ()) for name in one["names"]}
    for name in ("worker", "gateway"):
        if name not in services or name not in found:
            yield f"{CONFIG}: does not scrape the service {name} of {COMPOSE}"
    mounted = {one["target"] for one in services["prometheus"].get("configs", ())}
    for job in jobs:
        file = job.get("basic_auth", {}).get("password_file")
        if file is not None and file not in mounted:
            yield f"{CONFIG}: {file} of {job['job_name']} is not mounted in {COMPOSE}"


def runbook(root: Path = ROOT) -> Faults:
    """Check that every alert has its section on the page, and every section its alert."""
    named = [rule["alert"] for rule in rules(root)]
    told = re.findall(r"^### (\w+)$", (root / PAGE).read_text(), re.MULTILINE)
    if named != told:
        odd = sorted(set(named) ^ set(told)) or "the same in another order"
        yield f"{PAGE}: its sections differ from the alerts: {odd}"


def dashboard(root: Path = ROOT) -> Faults:
    """Check that the dashboard is up to date, its queries can be read, and its data source is provisioned."""
    if (root / DASHBOARD).read_text() != infra.grafana.dashboard.text():
        yield f"{DASHBOARD}: differs from panels.py; run python -m infra.grafana.dashboard"
    sources = read_yaml(root / "infra/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    for where, source, expr in questions(root):
        if source not in {one["uid"] for one in sources}:
            yield f"{DASHBOARD}: {where} asks {source}, which is not provisioned"
        try:
            promql_parser.parse(expr)
        except ValueError as error:
            yield f"{DASHBOARD}: {where}: {error}"
    (provider,) = read_yaml(root / "infra/grafana/provisioning/dashboards/mcp-sessions.yaml")["providers"]
    mounted = read_yaml(root / "infra/compose.yaml")["services"]["grafana"]["volumes"]
    if f"./grafana/dashboards:{provider['options']['path']}:ro" not in mounted:
        yield "infra/compose.yaml: the dashboard is not mounted where Grafana looks for it"


def questions(root: Path = ROOT) -> Iterator[tuple[str, str, str]]:
    """Yield every query of the dashboard: the panel, the data source, the expression."""
    for panel in json.loads((root / DASHBOARD).read_text())["panels"]:
        for target in panel.get("targets", []):
            expr = target["expr"]
            for variable, value in VARIABLES.items():
                expr = expr.replace(variable, value)
            yield panel["title"], target["datasource"]["uid"], expr


def metrics_that_exist(root: Path = ROOT) -> Faults:
    """Check that the metrics of alerts, dashboard and scaling exist, and that the dashboard uses all of ours."""
    shown = {name for _, _, expr in questions(root) for name in metrics_of(expr)}
    alerting = {name for rule in rules(root) for name in metrics_of(rule["expr"])}
    triggers = read_yaml(root / SCALING)["spec"]["triggers"]
    scaling = {name for one in triggers if one["type"] == "prometheus" for name in metrics_of(one["metadata"]["query"])}
    families = worker_metrics()
    if families is None:
        note(f"{METRICS} does not exist yet, so the metrics of dashboard and alerts were not compared with it")
        return
    there = OTHERS | {name for names in families.values() for name in names}
    for file, asked in ((DASHBOARD, shown), (ALERTS, alerting), (SCALING, scaling)):
        for name in sorted(asked - there):
            yield f"{file}: there is no metric {name}"
    for family, names in families.items():
        if not (names & shown) and family not in NOT_SHOWN:
            yield f"{DASHBOARD}: does not show {family}"
    for family in sorted(set(NOT_SHOWN) - set(families)):
        yield f"infra/grafana/panels.py: leaves out {family}, which does not exist"


def metrics_of(expr: str) -> set[str]:
    """Return the metrics in an expression."""
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(str(node.name))
        elif isinstance(node, promql_parser.MatrixSelector):
            found.add(str(node.vector_selector.name))

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found


def worker_metrics() -> dict[str, set[str]] | None:
    """Return our metrics by family, each with the names of its series; None if the module does not exist."""
    if importlib.util.find_spec(METRICS) is None:
        return None
    client = importlib.import_module("prometheus_client")
    module = importlib.import_module(METRICS)
    registries = [client.REGISTRY, *(one for one in vars(module).values() if isinstance(one, client.CollectorRegistry))]
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        family.name: {family.name + ending for ending in endings.get(family.type, ("",))}
        for registry in registries
        for family in registry.collect()
        if family.name.startswith(OURS)
    }
