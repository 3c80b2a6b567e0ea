"""The arrows between the rooms hold, and a tool proves it."""

import itertools
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(LINT), "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_arrows_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


WRONG = [
    ("consumer/sessions", "aio_pika", "Only the broker room speaks AMQP"),
    ("consumer/client", "pamqp", "Only the broker room speaks AMQP"),
    ("consumer/client", "consumer.calls", "The client needs no worker"),
    ("consumer/broker", "mcp", "Only the room of MCP servers and one module"),
    ("consumer/telephony", "consumer.sessions", "Arrows between the rooms"),
    ("consumer/calls", "consumer.processes", "Arrows between the rooms"),
    ("consumer/settings", "consumer.calls.ownership.owner", "Settings import what is configured"),
    ("consumer/calls/placement", "consumer.calls.ownership.owner", "In calls, placement and ownership"),
    ("consumer/calls/ownership", "consumer.calls.placement.strategy", "In calls, placement and ownership"),
    ("consumer/calls/requests", "consumer.calls.ownership.lifecycle", "In calls, placement and ownership"),
    ("consumer/calls/cluster", "consumer.calls.messages.gate", "In calls, placement and ownership"),
    ("consumer/observability", "consumer.settings", "Arrows between the rooms"),
    ("consumer/bridges", "consumer.client", "Bridges publish events"),
    ("consumer/gateway", "websockets", "Only bridges speak over WebSockets"),
    ("consumer/processes/stdio", "consumer.processes.launch.keeper", "In processes, each wing"),
    ("consumer/processes/client", "consumer.processes.warm.pool", "In processes, each wing"),
    ("consumer/processes/fork", "consumer.processes.client.mcp_client", "In processes, each wing"),
    ("consumer/processes/launch", "consumer.processes.fork.child", "In processes, each wing"),
    ("consumer/telephony", "consumer.broker", "The session core and the translators"),
    ("consumer/client/requester.py", "consumer.client.client", "In the client, the methods"),
    ("consumer/calls/routes.py", "aio_pika", "Routes and services are values"),
    ("consumer/bridges", "starlette", "Only the gateway and the metrics port serve HTTP"),
    ("consumer/gateway", "consumer.sessions", "The gateway asks workers through the client only"),
    ("consumer/gateway", "prometheus_client", "Only one room makes spans and metrics"),
    ("consumer/cli/top/keys.py", "consumer.cli.top.live", "In top, each file"),
    ("consumer/cli/top/head.py", "termios", "The state and the pictures of top are pure"),
    ("consumer/observability", "schemas", "Observability imports no other room"),
    ("schemas", "consumer.sessions", "The wire contract"),
]
"""A file or a folder, what it or a file in it imports, and the contract that this breaks."""

NO_PLACE = [
    ("consumer/calls/newwing", "In calls, placement and ownership"),
    ("consumer/newroom", "Arrows between the rooms"),
    ("consumer/processes/newwing", "In processes, each wing"),
]
"""A file or folder that no layer names, and the contract that this breaks."""


def test_every_contract_is_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = [contract["name"] for contract in project["tool"]["importlinter"]["contracts"]]
    tried = tuple(contract for _, _, contract in WRONG)
    assert [name for name in names if not name.startswith(tried)] == []


def importer(number: int) -> str:
    """The file that imports what the case of that number says: one that is there already, or a new one."""
    place = WRONG[number][0]
    return place if place.endswith(".py") else f"{place}/wrong_{number}.py"


def reports(told: str) -> dict[str, list[str]]:
    """What is told of each broken contract, by its name: a report is its name, a line, and what was found."""
    lines = told.splitlines()
    found: dict[str, list[str]] = {}
    lines_of_it: list[str] = []
    for name, line in itertools.pairwise(lines):
        if line and set(line) == {"-"}:
            lines_of_it = found.setdefault(name, [])
        lines_of_it.append(line)
    return found


def of_contract(told: str, contract: str) -> str:
    return "\n".join(line for name, lines in reports(told).items() if name.startswith(contract) for line in lines)


def told_of(copy: Path, files: dict[str, str]) -> str:
    """What is told of a copy of the rooms in which these texts stand at the end of these files, old or new."""
    for name in ("consumer", "schemas"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for name, text in files.items():
        with (copy / name).open("a") as file:
            file.write(text)
    done = lint(copy)
    assert done.returncode == 1
    return done.stdout


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is told when all these imports are there at once."""
    files = {importer(number): f"import {what}\n" for number, (_, what, _) in enumerate(WRONG)}
    return told_of(tmp_path_factory.mktemp("imports"), files)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is told when all that has no place is there at once."""
    return told_of(tmp_path_factory.mktemp("places"), {f"{name}.py": "" for name, _ in NO_PLACE})


@pytest.mark.parametrize(
    ("number", "case"), list(enumerate(WRONG)), ids=[f"{place} to {imported}" for place, imported, _ in WRONG]
)
def test_an_import_against_an_arrow_is_found(imports: str, number: int, case: tuple[str, str, str]) -> None:
    _, imported, contract = case
    module = importer(number).removesuffix(".py").replace("/", ".")
    assert f"{module} -> {imported} (l." in of_contract(imports, contract), imports


@pytest.mark.parametrize(("name", "contract"), NO_PLACE)
def test_what_has_no_place_is_found(places: str, name: str, contract: str) -> None:
    assert f"- {name.replace('/', '.')}" in of_contract(places, contract), places
