"""Help is quick, short, and has an example of every command."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from consumer.cli.app import app

GROUPS = {
    (): {
        "worker",
        "demo",
        "workers",
        "events",
        "asyncapi",
        "openapi",
        "top",
        "sessions",
        "tools",
        "services",
        "calls",
        "dead-letters",
        "topology",
        "config",
    },
    ("sessions",): {"list", "get", "create", "close"},
    ("tools",): {"list", "call"},
    ("services",): {"list", "tools", "describe", "check"},
    ("calls",): {"send"},
    ("dead-letters",): {"list", "show", "replay", "drop"},
    ("topology",): {"show", "apply", "verify", "permissions"},
    ("config",): {"check"},
    ("workers",): {"list", "get"},
}
SINGLE = {"worker", "demo", "workers", "events", "asyncapi", "openapi", "top"}
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


def help_of(command: tuple[str, ...]) -> str:
    """What ``--help`` prints, without a process of its own."""
    ran = CliRunner().invoke(app, [*command, "--help"], prog_name="mcp-sessions", terminal_width=80)
    assert ran.exit_code == 0
    return ran.output


def test_nothing_heavy_is_imported_before_a_command_runs():
    look = f"import sys, consumer.cli.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"


def test_the_exit_codes_of_the_worker_are_told_in_one_paragraph():
    told = help_of(("worker",))
    assert "Exit codes: 0 shut down cleanly; 2 " in told
    assert "too long; 4 drain_timeout too short, or events unsent." in " ".join(told.split())


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_names_its_commands(group: tuple[str, ...]):
    told = help_of(group)
    for name in GROUPS[group]:
        assert f"\n  {name} " in told


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_has_a_short_help_with_an_example(command: tuple[str, ...]):
    told = help_of(command)
    assert f"Example: mcp-sessions {' '.join(command)}" in told
    assert "--json" in told
    lines = told.splitlines()
    assert len(lines) <= 34
    assert max(map(len, lines)) <= 80
    text = re.split(r"^(?:Arguments|Options):", told, maxsplit=1, flags=re.MULTILINE)[0]
    assert not re.search(r"\S  +\S", text.partition("\n")[2])
