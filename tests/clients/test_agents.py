"""The MCP clients of LiveKit's and Pipecat's agents, unchanged from PyPI, each in an environment of its own.

``scripts/test -m long tests/clients`` runs them: the packages are large.
"""

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from infra.environments import environment
from tests import programs
from tests.gateway.conftest import TOKEN_KEY, served
from tests.harness import ECHO, ROOT, Cluster, config

FOLDER = ROOT / ".clients"
AGENTS = {
    "livekit": ["livekit-agents[mcp]>=1.8.9,<2"],
    "pipecat": ["pipecat-ai[mcp]>=1.14,<2"],
}
SERVICES = config(
    services={
        "todo": {"command": [sys.executable, "-m", "consumer.processes.todo_server"], "env": {"PYTHONPATH": str(ROOT)}},
        "echo": {"command": ECHO},
    }
)
RUN_TIMEOUT = 120.0

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


async def ran(agent: str, *arguments: str) -> dict[str, Any]:
    """What an agent's script has printed, run by the Python that has its framework."""
    FOLDER.mkdir(exist_ok=True)
    try:
        python = await asyncio.to_thread(environment, FOLDER / agent, AGENTS[agent])
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        pytest.skip(f"{agent} could not be installed from PyPI: {error}")
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-W", "ignore", str(ROOT / f"tests/clients/{agent}_agent.py"), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await programs.output_of(process, RUN_TIMEOUT)
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@pytest.mark.parametrize("agent", AGENTS)
async def test_an_agent_lists_tools_keeps_its_calls_list_and_hears_progress(mcp: Cluster, agent: str) -> None:
    await mcp.start(SERVICES)
    async with served(mcp, token_keys=[TOKEN_KEY]) as (gateway, http):
        minted = await http.post("/calls/c-1/token", json={"services": ["todo", "echo"]})
        urls = [f"http://127.0.0.1:{gateway.port}/{service}/mcp" for service in ("todo", "echo")]
        first = await ran(agent, *urls, minted.json()["token"], "milk")
        # Another job, another pipeline: another MCP session of the same call.
        second = await ran(agent, *urls, minted.json()["token"], "eggs")
    assert {"add_todo", "list_todos"} <= set(first["tools"])
    assert "milk" in first["listed"]
    assert "milk" in second["listed"]
    assert "eggs" in second["listed"]
    assert first["progress"] == ["step 1", "step 2", "step 3"]
