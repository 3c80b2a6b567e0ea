"""Services that are configured anew while their clients live."""

import asyncio
import random
from collections.abc import AsyncIterator

import psutil
import pytest

from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.mcp_manager import MCPManager
from consumer.processes.service import MCPService
from schemas.errors import OutcomeUnknown, ServiceNotFound, SessionDied, SessionsError

from .helpers import runs, service, structured, until

WARM = {"min": 1, "max": 2}
FORKED = "echo_server:main"


@pytest.fixture
async def manager() -> AsyncIterator[MCPManager]:
    async with MCPManager({"svc": service(warm=WARM)}) as made:
        made.warm_up()
        yield made


def processes(named: str) -> list[psutil.Process]:
    """What runs below us and is named so; of a helper and its forks, the helper."""
    below = psutil.Process().children(recursive=True)
    found = {child.pid: child for child in below if runs(child.pid) and named in " ".join(child.cmdline())}
    return [child for child in found.values() if child.ppid() not in found]


async def has_warm(manager: MCPManager, count: int, name: str = "svc") -> None:
    await until(lambda: manager.warm(name) == count, "the shelf is not as it should be", timeout=45)


async def environment(client: MCPClient) -> dict[str, str]:
    found: dict[str, str] = structured(await client.call_tool("env"))["env"]
    return found


async def test_those_that_wait_are_replaced_and_those_that_serve_live_on(manager: MCPManager) -> None:
    await has_warm(manager, 1)
    serving = await manager.create_client("svc")
    await has_warm(manager, 1)
    old = {process.pid for process in processes("echo_server")}
    changed = service(warm=WARM, env={"EDITION": "two"})
    manager.reconfigure({"svc": changed})
    await has_warm(manager, 1)
    await until(lambda: len(processes("echo_server")) == 2, "an old one waits", timeout=45)
    assert len({process.pid for process in processes("echo_server")} - old) == 1
    client = await manager.create_client("svc")
    assert client.start_kind == "warm"
    assert client.service is changed
    assert (await environment(client))["EDITION"] == "two"
    assert "EDITION" not in await environment(serving)


async def test_what_has_not_changed_is_left_alone(manager: MCPManager) -> None:
    await has_warm(manager, 1)
    (waiting,) = processes("echo_server")
    manager.reconfigure({"svc": service(warm=WARM), "new": service(warm=WARM).model_copy(update={"name": "new"})})
    await has_warm(manager, 1, "new")
    client = await manager.create_client("svc")
    assert client.process is not None
    assert client.process.pid == waiting.pid
    assert manager.take_back(client)  # equal is as good as the same


async def test_what_is_gone_is_cleared_and_refused(manager: MCPManager) -> None:
    await has_warm(manager, 1)
    client = await manager.create_client("svc")
    manager.reconfigure({"other": service(enabled=False, warm=WARM)})
    with pytest.raises(ServiceNotFound):
        await manager.create_client("svc")
    await until(lambda: len(processes("echo_server")) == 1, "one waits for a service that is gone", timeout=45)
    assert await client.call_tool("counter")
    assert not manager.take_back(client)


async def test_a_shelf_that_fills_is_cleared_too(manager: MCPManager) -> None:
    manager.reconfigure({"svc": service("mute", warm=WARM)})
    await until(lambda: processes("mute"), "it does not start", timeout=45)
    manager.reconfigure({})
    await until(lambda: not processes("mute") and not processes("echo_server"), "something is left", timeout=45)


async def test_nothing_is_started_ahead_by_a_manager_that_was_not_asked_to() -> None:
    async with MCPManager({}) as manager:
        manager.reconfigure({"svc": service(warm=WARM)})
        assert (await manager.create_client("svc")).start_kind == "cold"
        await manager.cool_down()
        manager.reconfigure({"svc": service(warm=WARM, env={"A": "b"})})
        assert len(processes("echo_server")) == 1


async def test_the_listing_is_that_of_the_new_service(manager: MCPManager) -> None:
    assert len(await manager.get_service_tools("svc")) > 2
    manager.reconfigure({"svc": service("echo_server", "--pages", "2")})
    assert len(await manager.get_service_tools("svc")) == 2


async def test_a_helper_ends_with_its_last_fork() -> None:
    async with MCPManager({"svc": service(fork_server=FORKED)}) as manager:
        one, two = [await manager.create_client("svc") for _ in range(2)]
        assert one.start_kind == two.start_kind == "forked"
        (helper,) = processes("fork/child.py")
        manager.reconfigure({"svc": service(fork_server=FORKED, env={"EDITION": "two"})})
        new = await manager.create_client("svc")
        assert (await environment(new))["EDITION"] == "two"
        await one.stop()
        assert await two.call_tool("counter")
        assert runs(helper.pid)
        await two.stop()
        await until(lambda: not runs(helper.pid), "the helper stays")
        assert new.is_alive
        assert two.process is not None
        assert two.process.poll() == 0


@pytest.mark.parametrize("wait", [False, True])
async def test_a_helper_without_forks_ends_at_once(wait: bool) -> None:
    async with MCPManager({"svc": service(fork_server=FORKED)}) as manager:
        manager.warm_up()
        await until(lambda: processes("fork/child.py"), "no helper starts", timeout=45)
        if wait:
            await (await manager.create_client("svc")).stop()
        manager.reconfigure({"svc": service()})
        assert (await manager.create_client("svc")).start_kind == "cold"
        await until(lambda: not processes("fork/child.py"), "the helper stays", timeout=45)


async def test_a_helper_is_shared_by_services_until_the_last_is_gone() -> None:
    one, two = service(fork_server=FORKED), service(fork_server=FORKED, description="another name for it")
    async with MCPManager({"one": one, "two": two}) as manager:
        client = await manager.create_client("one")
        manager.reconfigure({"two": two})
        await client.stop()
        assert (await manager.create_client("two")).start_kind == "forked"
        assert len(processes("fork/child.py")) == 1


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_at_once_nobody_shares_and_nothing_is_left(seed: int) -> None:
    chance = random.Random(seed)
    given: list[MCPClient] = []
    killed: set[int] = set()

    def was_killed(client: MCPClient) -> bool:
        return client.process is not None and client.process.pid in killed

    async def use(manager: MCPManager) -> None:
        await asyncio.sleep(chance.random() * 0.5)
        starting = asyncio.create_task(manager.create_client("svc"))
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random() * 0.1)
            starting.cancel()
        await asyncio.wait({starting})
        if starting.cancelled() or isinstance(starting.exception(), SessionsError):
            return
        client = starting.result()
        if chance.random() < 0.4 and manager.take_back(client):
            return
        given.append(client)
        try:
            await client.call_tool("counter")
        except (SessionDied, OutcomeUnknown):  # killed on its way to us
            assert was_killed(client)

    async def configure(manager: MCPManager) -> None:
        for number in range(3):
            await asyncio.sleep(0.2)
            for process in chance.sample(found := processes("echo_server"), k=min(1, len(found))):
                if process.pid not in {client.process.pid for client in given if client.process}:
                    killed.add(process.pid)
                    process.kill()
            manager.reconfigure({"svc": changed(number)})

    def changed(number: int) -> MCPService:
        return service(warm={"min": 1, "max": 3}, env={"EDITION": str(number)})

    async with MCPManager({"svc": changed(-1)}) as manager:
        manager.warm_up()
        await asyncio.gather(configure(manager), *(use(manager) for _ in range(12)), return_exceptions=False)
        assert len({client.process.pid for client in given if client.process}) == len(given)
        for client in given:
            if not was_killed(client):
                assert structured(await client.call_tool("counter"))["count"] == 2
