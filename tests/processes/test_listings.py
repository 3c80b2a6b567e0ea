"""What a service offers is known without a process, and known anew when it may have changed."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.mcp_manager import MCPManager

from .helpers import SERVERS, service, until

Names = Callable[[], Awaitable[set[str]]]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[MCPClient]:
    """Every client that is started."""
    started: list[MCPClient] = []
    start = MCPClient.start

    async def counted(self: MCPClient) -> None:
        started.append(self)
        await start(self)

    monkeypatch.setattr(MCPClient, "start", counted)
    return started


async def names(manager: MCPManager) -> set[str]:
    return {tool["name"] for tool in await manager.get_service_tools("svc")}


async def test_a_session_that_has_ended_leaves_its_listing(starts: list[MCPClient]) -> None:
    async with MCPManager({"svc": service()}) as manager:
        await (await manager.create_client("svc")).stop()
        assert "echo" in await names(manager)
        assert len(starts) == 1


async def test_a_change_that_a_session_hears_of_is_asked_of_that_session(starts: list[MCPClient]) -> None:
    async with MCPManager({"svc": service()}) as manager:
        first, second = [await manager.create_client("svc") for _ in range(2)]
        await first.call_tool("add_tool", {"name": "extra"})
        await until(lambda: first.tools_changed, "it does not hear of the change")
        assert "extra" in await names(manager)
        assert "extra" in {tool["name"] for tool in first.tools}
        assert "extra" not in {tool["name"] for tool in second.tools}
        assert len(starts) == 2


async def test_a_change_whose_session_is_gone_is_asked_of_another_one(starts: list[MCPClient]) -> None:
    async with MCPManager({"svc": service()}) as manager:
        first, second = [await manager.create_client("svc") for _ in range(2)]
        await first.call_tool("add_tool", {"name": "extra"})
        await until(lambda: first.tools_changed, "it does not hear of the change")
        await first.stop()
        assert "extra" not in await names(manager)
        assert second.is_alive
        assert len(starts) == 2


async def test_a_session_that_lists_again_renews_what_is_known(starts: list[MCPClient]) -> None:
    async with MCPManager({"svc": service()}) as manager:
        client = await manager.create_client("svc")
        await client.call_tool("add_tool", {"name": "extra"})
        await client.call_tool("extra", {"text": "x"})
        await client.stop()
        assert "extra" in await names(manager)
        assert len(starts) == 1


async def test_tools_hold_for_as_long_as_their_server_says(starts: list[MCPClient]) -> None:
    async with MCPManager({"svc": service("modern_server", "--ttl", "200")}) as manager:
        client = await manager.create_client("svc")
        await client.call_tool("add_tool", {"name": "extra"})
        async with asyncio.timeout(45):
            while "extra" not in await names(manager):
                await asyncio.sleep(0.02)
        assert len(starts) == 1
        await client.stop()
        async with asyncio.timeout(45):
            while len(starts) < 2:  # nobody is left to ask
                await names(manager)
                await asyncio.sleep(0.02)
        assert "extra" not in await names(manager)


async def test_a_session_asks_again_when_its_tools_hold_no_longer() -> None:
    async with MCPManager({"svc": service("modern_server", "--ttl", "100")}) as manager:
        client = await manager.create_client("svc")
        await client.call_tool("add_tool", {"name": "extra"})
        async with asyncio.timeout(45):
            while "extra" not in {tool["name"] for tool in await client.get_tools()}:
                await asyncio.sleep(0.02)


async def test_a_ttl_of_zero_is_what_servers_write_that_say_nothing(starts: list[MCPClient]) -> None:
    async with MCPManager({"svc": service("modern_server")}) as manager:
        await (await manager.create_client("svc")).stop()
        assert "echo" in await names(manager)
        assert len(starts) == 1


async def test_a_program_that_was_replaced_is_asked_anew(tmp_path: Path, starts: list[MCPClient]) -> None:
    script = tmp_path / "server.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(SERVERS)!r})\nfrom echo import TOOLS, main\n\nmain()\n")
    async with MCPManager({"svc": service(command=[sys.executable, str(script)])}) as manager:
        old = await manager.create_client("svc")
        assert "renamed" not in await names(manager)
        rename = 'TOOLS["renamed"] = TOOLS.pop("counter")'
        script.write_text(script.read_text().replace("main()", f"{rename}\nmain()"))
        assert "renamed" in await names(manager)
        assert len(starts) == 2
        await old.call_tool("add_tool", {"name": "extra"})  # of the old edition: it tells nothing of the new one
        await until(lambda: old.tools_changed, "it does not hear of the change")
        assert names_of(await old.get_tools()) >= {"extra", "counter"}
        assert not {"extra", "counter"} & await names(manager)
        assert len(starts) == 2


def names_of(tools: list[dict[str, Any]]) -> set[str]:
    return {tool["name"] for tool in tools}
