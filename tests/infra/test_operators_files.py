"""The files that operators and package managers read are right, and the checks of them find what is wrong."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra import checks, npm
from infra.checks import contract, environment, manifests, monitoring, platforms, promtool, repository

FILES = [
    "pyproject.toml", "requirements.lock", "requirements-run.lock", "requirements-sbom.lock", "requirements.txt",
    "bin/post_compile", "Procfile", "app.json", ".python-version", "README.md",
    "LICENSE", "scripts/test", ".ci/run", "docs/operations/alerts.md", "docs/asyncapi.json",
]  # fmt: skip

Check = Callable[[Path], Iterator[str]]
NOT_COPIED = shutil.ignore_patterns("__pycache__", "node_modules")


@pytest.mark.timeout(300)  # npm may have to install
@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_the_files_are_right(check: Callable[[], Iterator[str]]) -> None:
    assert list(check()) == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(checks.ROOT / name, tmp_path / name)
    shutil.copytree(checks.ROOT / "infra", tmp_path / "infra", ignore=NOT_COPIED)
    for folder in ("schemas", "consumer"):
        (tmp_path / folder).mkdir()
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


COMPOSE = "infra/compose.yaml"
DEPLOYMENT = "infra/kubernetes/deployment.yaml"
SCALED = "infra/kubernetes/scaledobject.yaml"
UNIT = "infra/systemd/mcp-sessions@.service"
GATEWAY_UNIT = "infra/systemd/mcp-sessions-gateway.service"
BRIDGE_UNIT = "infra/systemd/mcp-sessions-bridge.service"
OF_GATEWAY = "infra/kubernetes/gateway"
SERVING = f"{OF_GATEWAY}/deployment.yaml"
ALERTS = "infra/prometheus/alerts.yaml"
SCRAPED = "infra/prometheus/prometheus.yaml"
BOARD = "infra/grafana/dashboards/mcp-sessions.json"


@pytest.mark.parametrize(
    ("name", "right", "wrong", "check", "told"),
    [
        ("Procfile", "worker:", "job:", platforms.heroku, "Procfile"),
        ("app.json", "cloudamqp:lemur", "heroku-redis", platforms.heroku, "no broker"),
        (".python-version", "3.11", "3.11.7", platforms.heroku, ".python-version"),
        ("bin/post_compile", "--no-deps", "", platforms.heroku, "bin/post_compile"),
        ("requirements.txt", "-r requirements-run.lock", "", platforms.heroku, "requirements.txt"),
        ("requirements.lock", "tenacity==9", "tenacity==1", repository.lock, "tenacity"),
        ("requirements.lock", "structlog==", "structlog @ https://", repository.lock, "a download address"),
        ("requirements-run.lock", "--hash=sha256:", "--index-url=", repository.lock, "a download address"),
        ("scripts/test", "if [[", "if if [[", repository.scripts, "scripts/test"),
        ("infra/Dockerfile", "USER 10001", "USER root", platforms.dockerfile, "USER"),
        ("infra/Dockerfile", "ARG PYTHON=python:3.11-slim\n", "ARG PYTHON=python:3.9\n", platforms.dockerfile, "FROM"),
        ("infra/Dockerfile", "COPY consumer", "COPY consumers", platforms.dockerfile, "consumers"),
        (COMPOSE, "AMQP_URL", "AMQP", platforms.compose, "AMQP_URL"),
        (COMPOSE, "restart: unless-stopped", "restarts: unless-stopped", platforms.compose, "restarts"),
        (COMPOSE, "./prometheus/alerts.yaml:", "./prometheus/alarms.yaml:", platforms.compose, "alarms.yaml"),
        (UNIT, "-m consumer", "-m consumers", platforms.systemd, "starts no worker"),
        (UNIT, "KillMode=mixed", "KillMode=control-group", platforms.systemd, "SIGTERM"),
        ("app.json", '"15"', '"20"', environment.time_to_leave, "app.json: gives 30 s"),
        (COMPOSE, "stop_grace_period: 30s", "stop_grace_period: 20s", environment.time_to_leave, "gives 20 s"),
        (DEPLOYMENT, "PeriodSeconds: 3630", "PeriodSeconds: 3600", environment.time_to_leave, "may take 3612"),
        (UNIT, "TimeoutStopSec=40", "TimeoutStopSec=10", environment.time_to_leave, "gives 10 s"),
        (GATEWAY_UNIT, "mcp-sessions gateway", "mcp-sessions worker", platforms.systemd, "starts no gateway"),
        (BRIDGE_UNIT, "bridge asterisk", "gateway", platforms.systemd, "starts no bridge"),
        (COMPOSE, '"127.0.0.1:${MCP_GATEWAY_PORT', '"${MCP_GATEWAY_PORT', platforms.compose, "from other machines"),
        (COMPOSE, "[mcp-sessions, gateway]", "[mcp-sessions, worker]", platforms.compose, "runs no gateway"),
        (SERVING, 'value: "8080"', 'value: "9090"', manifests.gateway, "listens on 9090"),
        (SERVING, "args: [mcp-sessions, gateway]", "args: [mcp-sessions]", manifests.gateway, "instead of a gateway"),
        (SERVING, "path: /readyz", "path: /health", manifests.gateway, "readinessProbe"),
        (SERVING, "PeriodSeconds: 45", "PeriodSeconds: 30", manifests.gateway, "may take 40 s"),
        (SERVING, "_DRAIN_TIMEOUT", "_DRAIN_TIME", environment.variables_that_exist, "no setting"),
        (
            f"{OF_GATEWAY}/service.yaml",
            "mcp-sessions-gateway }\n  ports",
            "mcp }\n  ports",
            manifests.gateway,
            "Service",
        ),
        (f"{OF_GATEWAY}/kustomization.yaml", "  - service.yaml\n", "", manifests.gateway, "lists"),
        (DEPLOYMENT, "readOnlyRootFilesystem", "readOnlyRoot", manifests.kubernetes, "readOnlyRoot"),
        (DEPLOYMENT, "replicas: 2", 'replicas: "2"', manifests.kubernetes, "deployment.yaml: spec.replicas"),
        (DEPLOYMENT, 'value: "8080"', 'value: "9090"', manifests.kubernetes, "listens on 9090"),
        (SCALED, 'threshold: "35"', "threshold: 35", manifests.kubernetes, "$.spec.triggers"),
        (SCALED, 'threshold: "35"', 'threshold: "50"', manifests.kubernetes, "no room"),
        (SCALED, "stabilizationWindowSeconds: 1800", "stabilisationWindow: 1800", manifests.kubernetes, "isation"),
        (SCALED, "value: 1, periodSeconds", "value: 2, periodSeconds", manifests.kubernetes, "more than one worker"),
        ("infra/kubernetes/mcp-sessions.toml", '"wait"', '"hand_over"', manifests.kubernetes, "one may take 3630 s"),
        (SCALED, "queueName: mcp.calls", "queueName: calls", manifests.kubernetes, "no queue calls"),
        (
            ALERTS,
            "expr: sum(mcp_sessions_placer) == 0",
            "expr: sum(mcp_sessions_placer == 0",
            monitoring.alerts,
            "paren",
        ),
        (ALERTS, "rate(mcp_sessions_loop", "abs(mcp_sessions_loop", monitoring.alerts, "LoopLag"),
        (SCRAPED, "names: [gateway]", "names: [web]", monitoring.scraping, "does not scrape the service gateway"),
        (COMPOSE, "target: /etc/prometheus/gateway_password", "target: /tmp/it", monitoring.scraping, "not mounted"),
        (ALERTS, "#mcpsessionslost", "#lost", monitoring.alerts, "McpSessionsLost has no runbook_url to its section"),
        (ALERTS, "alert: McpSessionsDying", "alert: McpSessionsDead", monitoring.runbook, "McpSessionsDead"),
        ("docs/operations/alerts.md", "### McpSessionsLost", "### Lost", monitoring.runbook, "McpSessionsLost"),
        (BOARD, '"uid": "prometheus"', '"uid": "other"', monitoring.dashboard, "asks other"),
        (BOARD, "sum(rate(", "sum(rat(", monitoring.dashboard, "rat"),
        ("infra/node/.npmrc", "audit", "registry=x\naudit", contract.asyncapi, "a download address"),
        pytest.param(
            "docs/asyncapi.json",
            "#/channels/replies/messages/tools.call.reply",
            "#/channels/replies/messages/tools.calls.reply",
            contract.asyncapi,
            "tools.calls.reply",
            marks=pytest.mark.skipif(not npm.available(), reason="AsyncAPI's parser needs npm"),
        ),
    ],
)
@pytest.mark.timeout(300)
def test_the_checks_find_what_is_wrong(copy: Path, name: str, right: str, wrong: str, check: Check, told: str) -> None:
    path = copy / name
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    assert any(told in fault for fault in check(copy))


def test_a_variable_that_is_no_setting_is_named(copy: Path) -> None:
    path = copy / "app.json"
    path.write_text(path.read_text().replace("MCP_SESSIONS_PREFIX", "MCP_SESSIONS_PREFFIX"))
    assert "app.json: there is no setting MCP_SESSIONS_PREFFIX" in environment.variables_that_exist(copy)


@pytest.mark.skipif(monitoring.worker_metrics() is None, reason="the worker has no metrics yet")
def test_a_metric_that_does_not_exist_is_named(copy: Path) -> None:
    path = copy / ALERTS
    path.write_text(path.read_text().replace("sum(mcp_sessions_placer)", "sum(mcp_sessions_placers)"))
    assert f"{ALERTS}: there is no metric mcp_sessions_placers" in monitoring.metrics_that_exist(copy)


def test_the_metrics_of_an_expression_are_found_wherever_they_are() -> None:
    expr = 'sum(rate(a_total{x="y"}[5m])) / (b unless b offset 5m) > on () group_left max_over_time(c[5m:1m])'
    assert monitoring.metrics_of(expr) == {"a_total", "b", "c"}


def test_an_alert_that_does_not_fire_when_it_should_is_named(copy: Path) -> None:
    if promtool.find_promtool() is None:
        pytest.skip("there is no promtool")
    path = copy / ALERTS
    path.write_text(path.read_text().replace("mcp_sessions_link_up == 0\n", "mcp_sessions_link_up == 2\n"))
    assert any("McpSessionsLinkDown" in fault for fault in monitoring.alerts(copy))


def test_a_file_that_is_too_long_is_named(copy: Path) -> None:
    (copy / "consumer" / "long.py").write_text("x = 1\n" * 501)
    assert list(repository.files_too_long(copy)) == ["consumer/long.py: 501 lines; 500 are the most"]


def test_a_script_that_cannot_be_run_is_named(copy: Path) -> None:
    (copy / "scripts" / "test").chmod(0o644)
    assert list(repository.scripts(copy)) == ["scripts/test: is not executable"]


def test_the_page_about_observability_recommends_queries_of_the_alerts():
    page = (checks.ROOT / "docs" / "operations" / "observability.md").read_text()
    table = page.split("| query | what it means |")[1].split("\n\n")[0]
    asked = [line.split("`")[1] for line in table.splitlines()[2:]]
    assert len(asked) == 5
    assert set(asked) <= {rule["expr"] for rule in monitoring.rules()}
