"""Services by name, and the clients made of them."""

import asyncio
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from consumer.processes.client.era import Era
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.mcp_manager import MCPManager
from consumer.processes.warm.starter import ColdStarter
from schemas.errors import ServiceDisabled, ServiceNotFound, ShuttingDown, StartFailed, StartTimeout

from .helpers import command, service, structured, text


async def test_a_client_by_name() -> None:
    async with MCPManager({"echo": service()}) as manager:
        client = await manager.create_client("echo")
        assert text(await client.call_tool("echo", {"text": "x"})) == "x"
        await client.stop()


async def test_a_signalwire_configuration_is_read_as_it_is() -> None:
    config: dict[str, Any] = {
        "server": {"host": "0.0.0.0", "port": 8080, "auth_user": "admin"},
        "services": {
            "todo": {
                "command": command("echo_server"),
                "description": "Todo list",
                "enabled": True,
                "sandbox": {"enabled": True, "resource_limits": True, "restricted_env": True, "note": "strict"},
            },
            "off": {"command": ["x"], "enabled": False, "sandbox": {"enabled": False}},
        },
        "session": {"default_timeout": 300},
    }
    async with MCPManager(config) as manager:
        assert manager.list_services() == {
            "todo": {"description": "Todo list", "enabled": True, "transport": "stdio"},
            "off": {"description": "", "enabled": False, "transport": "stdio"},
        }
        assert manager.services["off"].sandbox.kind == "none"
        assert (await manager.create_client("todo")).is_alive


async def test_unknown_and_disabled_services_are_value_errors() -> None:
    async with MCPManager({"off": service(enabled=False)}) as manager:
        for name, error in (("nope", ServiceNotFound), ("off", ServiceDisabled)):
            for ask in (manager.create_client, manager.get_service_tools):
                with pytest.raises(error, match=name) as caught:
                    await ask(name)
                assert isinstance(caught.value, ValueError)


async def test_an_unknown_service_is_told_with_the_one_that_was_meant() -> None:
    async with MCPManager({"weather": service(), "todo": service()}) as manager:
        with pytest.raises(ServiceNotFound, match="'Wether'; did you mean 'weather'\\? configured: todo, weather"):
            manager.get_service("Wether")


async def test_a_wrong_service_is_refused() -> None:
    with pytest.raises(ValidationError, match="url"):
        MCPManager({"services": {"x": {"command": ["a"], "url": "http://b"}}})


async def test_tools_are_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = 0
    start = MCPClient.start

    async def counted(self: MCPClient) -> None:
        nonlocal starts
        starts += 1
        await start(self)

    monkeypatch.setattr(MCPClient, "start", counted)
    async with MCPManager({"echo": service(), "crash": service("crash")}) as manager:
        listings = await asyncio.gather(*(manager.get_service_tools("echo") for _ in range(10)))
        assert starts == 1
        assert all(listing == listings[0] for listing in listings)
        assert "echo" in {tool["name"] for tool in listings[0]}
        await manager.create_client("echo")
        assert await manager.get_service_tools("echo") == listings[0]
        assert starts == 2
        for _ in range(2):
            with pytest.raises(StartFailed):
                await manager.get_service_tools("crash")
        assert starts == 4  # a failure is not remembered


async def test_all_services_are_validated_at_once() -> None:
    services = {
        "echo": service(),
        "crash": service("crash"),
        "mute": service("mute", start_timeout=1),
        **{f"mute-{number}": service("mute", start_timeout=1) for number in range(8)},
        "missing": service(command=["no-such-server"]),
        "off": service("crash", enabled=False),
    }
    before = set(psutil.Process().children())  # a broker of this test run, perhaps
    async with MCPManager(services) as manager:
        started = time.monotonic()
        checks = await manager.validate_services()
        assert time.monotonic() - started < 8
        assert len(set(psutil.Process().children()) - before) == 1  # the keeper
    assert set(checks) == set(services) - {"off"}
    assert checks["echo"].error is None
    assert checks["echo"].tools
    assert isinstance(checks["crash"].error, StartFailed)
    assert isinstance(checks["mute"].error, StartTimeout)
    assert "no-such-server" in str(checks["missing"].error)


async def test_twenty_at_once_are_as_fast_as_the_processors_allow() -> None:
    async with MCPManager({"echo": service()}) as manager:
        await manager.create_client("echo")
        started = time.monotonic()
        for _ in range(5):
            await manager.create_client("echo")
        one_by_one = (time.monotonic() - started) / 5
        started = time.monotonic()
        clients = await asyncio.gather(*(manager.create_client("echo") for _ in range(20)))
        at_once = (time.monotonic() - started) / 20
        assert at_once < 1.5 * one_by_one
        homes = {structured(await client.call_tool("cwd"))["cwd"] for client in clients}
        assert len(homes) == 20


async def test_who_hangs_does_not_keep_others_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.processes.warm.starter.CPU_BOUND", 0.3)
    starter = ColdStarter(most_at_once=1)
    async with MCPManager({"mute": service("mute"), "echo": service()}, starter=starter) as manager:
        hanging = asyncio.create_task(manager.create_client("mute"))
        await asyncio.sleep(0)
        started = time.monotonic()
        await manager.create_client("echo")
        assert time.monotonic() - started < 20
        assert not hanging.done()
        await manager.shutdown()
        with pytest.raises(StartFailed, match="stopped"):
            await hanging


async def test_an_old_server_is_asked_once_which_era_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.processes.client.protocol_versions.PROBE_TIMEOUT", 2.0)
    async with MCPManager({"silent": service("echo_server", "--silent")}) as manager:
        assert (await manager.create_client("silent")).era is Era.HANDSHAKE
        monkeypatch.setattr("consumer.processes.client.protocol_versions.PROBE_TIMEOUT", 600.0)
        assert (await manager.create_client("silent")).era is Era.HANDSHAKE  # a second question would take too long


async def test_shutdown_ends_all_at_once_and_leaves_nothing(temporary: Path) -> None:
    manager = MCPManager({"echo": service("echo_server", "--ignore-eof", "--grandchild")})
    clients = await asyncio.gather(*(manager.create_client("echo") for _ in range(8)))
    assert list(temporary.glob("mcp-sessions-*"))
    started = time.monotonic()
    await asyncio.gather(manager.shutdown(), manager.shutdown())
    assert time.monotonic() - started < 8 * 1.5
    assert not any(client.is_alive for client in clients)
    assert not list(temporary.glob("mcp-sessions-*"))
    with pytest.raises(ShuttingDown):
        await manager.create_client("echo")


async def test_a_start_that_is_under_way_is_ended_by_shutdown() -> None:
    manager = MCPManager({"mute": service("mute")})
    starting = asyncio.create_task(manager.create_client("mute"))
    await asyncio.sleep(0.2)
    await manager.shutdown()
    with pytest.raises(StartFailed, match="stopped"):
        await starting
