"""SignalWire's own skill, unchanged, from PyPI: it lists and calls tools here as at its own gateway."""

import asyncio
import os
from pathlib import Path

import pytest

from scripts.benchmarks import peer
from tests.gateway.conftest import PASSWORD, TOKEN, USER, Serve
from tests.gateway.test_cases import SERVICES
from tests.harness import ROOT, Cluster, config

AGENT = ROOT / "tests/gateway/agent.py"
ODD = SERVICES["odd"]["command"]

CREDENTIALS = {
    "basic": {"GATEWAY_USER": USER, "GATEWAY_PASSWORD": PASSWORD},
    "bearer": {"GATEWAY_TOKEN": TOKEN},
}


async def swaig_test(sdk: Path, port: int, service: str, *arguments: str, **env: str) -> str:
    """What SignalWire's command ``swaig-test`` prints; each run is a process of its own."""
    process = await asyncio.create_subprocess_exec(
        str(sdk),
        "-m",
        "signalwire.cli.test_swaig",
        str(AGENT),
        *arguments,
        env=os.environ
        | {"GATEWAY_URL": f"http://127.0.0.1:{port}", "SERVICE": service, "SWML_ALLOW_PRIVATE_URLS": "1"}
        | env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(50):
        told, _ = await process.communicate()
    return told.decode()


@pytest.mark.parametrize("how", CREDENTIALS)
async def test_swaig_test_lists_and_calls_tools_and_keeps_state(
    mcp: Cluster, serve: Serve, sdk: Path, how: str
) -> None:
    await mcp.start(config(services={"todo": SERVICES["todo"]}))
    port = int((await serve()).base_url.port or 0)
    env = CREDENTIALS[how]
    assert "mcp_todo_add_todo" in await swaig_test(sdk, port, "todo", "--list-tools", **env)
    call = ["--call-id", "skill-1"]
    added = await swaig_test(sdk, port, "todo", *call, "--exec", "mcp_todo_add_todo", "--text", "milk", **env)
    assert "added milk" in added
    listed = await swaig_test(sdk, port, "todo", *call, "--exec", "mcp_todo_list_todos", **env)
    assert "milk" in listed
    await swaig_test(sdk, port, "todo", *call, "--exec", "_mcp_gateway_hangup", **env)
    await mcp.event("closed", session_id="skill-1", reason="requested")


async def test_a_tool_that_fails_runs_once_here_and_three_times_at_the_original(
    mcp: Cluster, serve: Serve, sdk: Path, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    odd = {"command": ODD, "env": {"CHARGED": str(ours)}, "sandbox": {"kind": "none"}}
    await mcp.start(config(services={"odd": odd}))
    port = int((await serve()).base_url.port or 0)
    call = ["--call-id", "charged-1", "--exec", "mcp_odd_charge"]
    told = await swaig_test(sdk, port, "odd", *call, **CREDENTIALS["basic"])
    assert "it failed" in told
    assert ours.read_text().count("charged") == 1
    command = ["/usr/bin/env", f"CHARGED={theirs}", *ODD]
    async with peer.gateway(sdk, {"odd": command}) as original:
        url, user, password = original.login
        env = {"GATEWAY_USER": user, "GATEWAY_PASSWORD": password}
        await swaig_test(sdk, int(url.rpartition(":")[2]), "odd", *call, **env)
    assert theirs.read_text().count("charged") == 3
