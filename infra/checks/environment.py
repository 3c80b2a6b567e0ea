"""Checks the files of operators: their variables exist, and the kill timeouts are long enough for a worker."""

import json
import re
from pathlib import Path

from consumer.settings import load_settings
from consumer.settings.environment import PREFIX, variables
from consumer.settings.models import WorkerSettings
from consumer.worker.budgets import leaving_time
from infra.checks.common import ROOT, Faults, read_yaml, seconds
from infra.checks.platforms import UNIT, unit

HEROKU_GIVES = 30.0
"""Seconds from SIGTERM to SIGKILL: https://devcenter.heroku.com/articles/dyno-shutdown-behavior."""

FILES = ("app.json", "infra/Dockerfile", "infra/compose.yaml", "infra/kubernetes/**/*.yaml", "infra/systemd/*")
DRAIN = f"{PREFIX}DRAIN_TIMEOUT"


def variables_that_exist(root: Path = ROOT) -> Faults:
    """Check that every ``MCP_SESSIONS_`` variable in the operators' files is a setting."""
    known = {*variables(), f"{PREFIX}CONFIG"}
    for path in sorted(found for pattern in FILES for found in root.glob(pattern)):
        text = re.sub(r"^\s*#.*", "", path.read_text(), flags=re.MULTILINE)
        for variable in sorted(set(re.findall(rf"{PREFIX}\w+", text)) - known):
            yield f"{path.relative_to(root)}: there is no setting {variable}"


def time_to_leave(root: Path = ROOT) -> Faults:
    """Check that no platform kills a worker before it has handed its calls over."""
    for name, drain, given in _limits(root):
        needed = leaving_time(drain)
        if needed > given:
            yield f"{name}: gives {given:g} s to shut down, but with drain_timeout = {drain:g} it may take {needed:g}"


def _limits(root: Path) -> list[tuple[str, float, float]]:
    """Yield each file with its ``drain_timeout``, and the time that its platform allows."""
    default = WorkerSettings().drain_timeout
    app = json.loads((root / "app.json").read_text())["env"]
    compose = read_yaml(root / "infra" / "compose.yaml")["services"]["worker"]
    pod = read_yaml(root / "infra" / "kubernetes" / "deployment.yaml")["spec"]["template"]["spec"]
    configured = load_settings(root / "infra" / "kubernetes" / "mcp-sessions.toml", env={}).worker.drain_timeout
    for_systemd = dict(re.findall(r"^(\w+)=(.*)$", (root / "infra/systemd/worker.env").read_text(), re.MULTILINE))
    return [
        ("app.json", float(app.get(DRAIN, {}).get("value", default)), HEROKU_GIVES),
        (
            "infra/compose.yaml",
            float(compose["environment"].get(DRAIN, default)),
            seconds(compose.get("stop_grace_period", 10)),
        ),
        ("infra/kubernetes/deployment.yaml", configured, pod.get("terminationGracePeriodSeconds", 30)),
        (f"infra/systemd/{UNIT}", float(for_systemd.get(DRAIN, default)), seconds(unit(root)["TimeoutStopSec"])),
    ]
