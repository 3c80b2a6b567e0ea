"""Help is quick, short, and has an example of every command."""

import subprocess
import sys
import time

import pytest

from tests.cli.conftest import PROGRAM, Cli

GROUPS = {
    (): {"worker", "demo", "workers", "events", "sessions", "tools", "services", "calls", "topology", "config"},
    ("sessions",): {"list", "get", "create", "close"},
    ("tools",): {"list", "call"},
    ("services",): {"list", "tools", "check"},
    ("calls",): {"send"},
    ("topology",): {"show", "apply", "verify"},
    ("config",): {"check"},
}
SINGLE = {"worker", "demo", "workers", "events"}
COMMANDS = [(*group, name) for group, names in GROUPS.items() for name in sorted(names) if group or name in SINGLE]
HEAVY = (
    "pydantic",
    "aio_pika",
    "mcp",
    "structlog",
    "consumer.worker",
    "consumer.client",
    "consumer.settings",
    "uvloop",
)


def test_help_comes_quickly():
    def once() -> float:
        began = time.perf_counter()
        subprocess.run([PROGRAM, "--help"], check=True, capture_output=True)
        return time.perf_counter() - began

    assert min(once() for _ in range(5)) < 0.4


def test_nothing_heavy_is_imported_before_a_command_runs():
    look = f"import sys, consumer.cli.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("group", GROUPS)
async def test_a_group_names_its_commands(offline: Cli, group: tuple[str, ...]):
    ran = await offline(*group, "--help")
    assert ran.code == 0
    for name in GROUPS[group]:
        assert f"\n  {name} " in ran.out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_a_command_has_a_short_help_with_an_example(offline: Cli, command: tuple[str, ...]):
    ran = await offline(*command, "-h")
    assert ran.code == 0
    assert f"Example: mcp-sessions {' '.join(command)}" in ran.out
    assert "--json" in ran.out
    lines = ran.out.splitlines()
    assert len(lines) <= 34
    assert max(map(len, lines)) <= 80
