"""The arrows between the rooms hold, and a tool proves it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(LINT), "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_arrows_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rooms")
    for name in ("consumer", "schemas"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize(
    ("room", "imported", "contract"),
    [
        ("consumer/sessions", "aio_pika", "Only the broker room speaks AMQP"),
        ("consumer/client", "pamqp", "Only the broker room speaks AMQP"),
        ("consumer/client", "consumer.calls", "The client needs no worker"),
        ("consumer/broker", "mcp", "Only the room of MCP servers and one module"),
        ("consumer/telephony", "consumer.sessions", "Arrows between the rooms"),
        ("consumer/calls", "consumer.processes", "Arrows between the rooms"),
        ("consumer/settings", "consumer.calls.ownership.owner", "Settings see what is configured"),
        ("consumer/calls/placement", "consumer.calls.ownership.owner", "In calls, placing and owning"),
        ("consumer/calls/ownership", "consumer.calls.placement.strategy", "In calls, placing and owning"),
        ("consumer/calls/requests", "consumer.calls.ownership.lifecycle", "In calls, placing and owning"),
        ("consumer/calls/cluster", "consumer.calls.messages.gate", "In calls, placing and owning"),
        ("consumer/calls/newwing", "consumer.calls.routes", "In calls, placing and owning"),
        ("consumer/observability", "consumer.settings", "Arrows between the rooms"),
        ("consumer/bridges", "consumer.client", "Bridges publish what they hear"),
        ("consumer/gateway", "websockets", "Only bridges speak over WebSockets"),
        ("consumer/newroom", "consumer.broker", "every room has its place"),
        ("consumer/processes/stdio", "consumer.processes.launch.keeper", "Among the processes"),
        ("consumer/processes/client", "consumer.processes.warm.pool", "Among the processes"),
        ("consumer/processes/newwing", "consumer.processes.service", "Among the processes"),
        ("schemas", "consumer.sessions", "The wire contract"),
    ],
)
def test_an_import_against_an_arrow_is_found(copy: Path, room: str, imported: str, contract: str) -> None:
    wrong = copy / room / "wrong.py" if (copy / room).is_dir() else copy / f"{room}.py"
    before = wrong.read_text() if wrong.exists() else None
    wrong.write_text(f"{before or ''}\nimport {imported}\n")
    done = lint(copy)
    if before is None:
        wrong.unlink()
    else:
        wrong.write_text(before)
    assert done.returncode == 1
    assert any(contract in line and "BROKEN" in line for line in done.stdout.splitlines()), done.stdout
