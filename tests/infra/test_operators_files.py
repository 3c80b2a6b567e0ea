"""The files that operators and package managers read are right, and the checks of them find what is wrong."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra import checks

FILES = [
    "pyproject.toml", "requirements.lock", "requirements.txt", "Procfile", "app.json", ".python-version", "README.md",
    "LICENSE", "infra/Dockerfile", "infra/Dockerfile.dockerignore", "infra/compose.yaml", "scripts/test", ".ci/run",
    "infra/rabbitmq_of_debian",
]  # fmt: skip


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_the_files_are_right(check: Callable[[], Iterator[str]]) -> None:
    assert list(check()) == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(checks.ROOT / name, tmp_path / name)
    for folder in ("schemas", "consumer"):
        (tmp_path / folder).mkdir()
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "right", "wrong", "check", "told"),
    [
        ("Procfile", "worker", "web", checks.heroku, "Procfile"),
        ("app.json", "cloudamqp:lemur", "heroku-redis", checks.heroku, "no broker"),
        (
            "app.json",
            "MCP_SESSIONS_PREFIX",
            "MCP_SESSIONS_PREFFIX",
            checks.variables_that_exist,
            "MCP_SESSIONS_PREFFIX",
        ),
        (".python-version", "3.11", "3.11.7", checks.heroku, ".python-version"),
        ("requirements.txt", "-c requirements.lock", "", checks.heroku, "requirements.txt"),
        ("requirements.lock", "tenacity==9", "tenacity==1", checks.lock, "tenacity"),
        ("requirements.lock", "structlog==", "structlog @ https://", checks.lock, "a place to fetch from"),
        ("infra/Dockerfile", "USER worker", "USER root", checks.dockerfile, "USER"),
        ("infra/Dockerfile", "FROM python:3.11-slim\n", "FROM python:3.9\n", checks.dockerfile, "FROM"),
        ("infra/Dockerfile", "COPY consumer", "COPY consumers", checks.dockerfile, "consumers"),
        ("infra/compose.yaml", "AMQP_URL", "AMQP", checks.compose, "AMQP_URL"),
        ("scripts/test", "if [[", "if if [[", checks.scripts, "scripts/test"),
        ("infra/rabbitmq_of_debian", "if [[", "if if [[", checks.scripts, "infra/rabbitmq_of_debian"),
    ],
)
def test_the_checks_find_what_is_wrong(
    copy: Path, name: str, right: str, wrong: str, check: Callable[[Path], Iterator[str]], told: str
) -> None:
    path = copy / name
    assert list(check(copy)) == []
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    assert any(told in fault for fault in check(copy))


def test_a_file_that_is_too_long_is_named(copy: Path) -> None:
    (copy / "consumer" / "long.py").write_text("x = 1\n" * 501)
    assert list(checks.files_too_long(copy)) == ["consumer/long.py: 501 lines; 500 are the most"]


def test_a_script_that_cannot_be_run_is_named(copy: Path) -> None:
    (copy / "scripts" / "test").chmod(0o644)
    assert list(checks.scripts(copy)) == ["scripts/test: is not executable"]
