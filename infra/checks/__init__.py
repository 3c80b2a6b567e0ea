"""Checks that no other tool makes: lengths of files, and the files of operators and package managers.

``python -m infra.checks`` prints all faults and exits with 1, or prints the number of checks. Tests call the same
functions. A tool that the system has to bring (Docker Compose, systemd-analyze, kubectl, npm) is asked where it is
there; the other validators come with the development dependencies.
"""

from collections.abc import Callable

from infra.checks.common import ROOT, Faults
from infra.checks.contract import asyncapi
from infra.checks.environment import time_to_leave, variables_that_exist
from infra.checks.manifests import gateway, kubernetes
from infra.checks.monitoring import alerts, dashboard, metrics_that_exist, runbook, scraping
from infra.checks.platforms import compose, dockerfile, heroku, systemd
from infra.checks.repository import files_too_long, lock, scripts, vulnerabilities

CHECKS: tuple[Callable[[], Faults], ...] = (
    files_too_long,
    lock,
    vulnerabilities,
    scripts,
    heroku,
    dockerfile,
    compose,
    systemd,
    kubernetes,
    gateway,
    variables_that_exist,
    time_to_leave,
    alerts,
    scraping,
    runbook,
    dashboard,
    metrics_that_exist,
    asyncapi,
)

__all__ = ["CHECKS", "ROOT", "Faults"]
