"""Processes that are started ahead of calls: taken once, replaced, and gone when they should be."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import structlog
from tenacity import wait_none

from consumer.processes.mcp_manager import MCPManager
from consumer.processes.service import MCPService, Warm
from consumer.processes.warm.demand import Demand
from consumer.processes.warm.slots import Slots

from .helpers import command, runs, service, structured

Make = Callable[..., "Pool"]


class Pool:
    """A manager whose only service ``svc`` is kept warm, and its news."""

    def __init__(self, services: dict[str, MCPService]) -> None:
        self.manager = MCPManager(services, warm_changed=self._heard)
        self.counts: list[int] = []
        self._changed = asyncio.Event()

    def begin(self) -> None:
        self.manager.warm_up()

    def _heard(self) -> None:
        self.counts.append(self.manager.warm("svc"))
        self._changed.set()

    async def has(self, count: int) -> None:
        """Wait until so many wait."""
        await self._until(lambda: self.manager.warm("svc") == count)

    async def has_had(self, count: int) -> None:
        """Wait until so many wait or have waited at once."""
        await self._until(lambda: max(self.counts, default=0) >= count)

    async def _until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(45):
            while not true():
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def warm() -> AsyncIterator[Make]:
    made: list[Pool] = []

    def make(name: str = "echo_server", *switches: str, warm: dict[str, float], **settings: object) -> Pool:
        pool = Pool({"svc": service(name, *switches, warm=warm, **settings)})
        made.append(pool)
        pool.begin()
        return pool

    yield make
    await asyncio.gather(*(pool.manager.shutdown() for pool in made))


def servers() -> list[psutil.Process]:
    """The echo servers that run below us."""
    return [child for child in psutil.Process().children(recursive=True) if "echo_server" in " ".join(child.cmdline())]


async def test_a_session_gets_a_process_that_waited_for_it(warm: Make) -> None:
    pool = warm(warm={"min": 1, "max": 1})
    await pool.has(1)
    (waiting,) = servers()
    client = await pool.manager.create_client("svc")
    assert client.start_kind == "warm"
    assert client.process is not None
    assert client.process.pid == waiting.pid
    assert client.tools
    assert structured(await client.call_tool("counter"))["count"] == 1


async def test_none_is_given_out_twice_and_the_pool_refills(warm: Make) -> None:
    pool = warm(warm={"min": 3, "max": 3})
    await pool.has(3)
    clients = await asyncio.gather(*(pool.manager.create_client("svc") for _ in range(6)))
    assert sorted(client.start_kind for client in clients) == ["cold"] * 3 + ["warm"] * 3
    assert len({client.process.pid for client in clients if client.process}) == 6
    await pool.has(3)
    assert len(servers()) == 9


async def test_who_has_served_is_never_given_out_again(warm: Make) -> None:
    pool = warm(warm={"min": 1, "max": 1})
    await pool.has(1)
    first = await pool.manager.create_client("svc")
    await first.stop()
    await pool.has(1)
    second = await pool.manager.create_client("svc")
    assert second is not first
    assert structured(await second.call_tool("counter"))["count"] == 1


async def test_nothing_starts_ahead_until_it_is_said() -> None:
    async with MCPManager({"svc": service(warm={"min": 2, "max": 2})}) as manager:
        assert (await manager.create_client("svc")).start_kind == "cold"
        assert len(servers()) == 1


async def test_the_pools_listing_is_the_catalogue(warm: Make) -> None:
    pool = warm(warm={"min": 1, "max": 1})
    await pool.has(1)
    assert "echo" in {tool["name"] for tool in await pool.manager.get_service_tools("svc")}
    assert pool.manager.warm("svc") == 1  # nobody was taken or started for it
    assert len(servers()) == 1


async def test_services_with_one_command_share_a_listing() -> None:
    services = {"one": service(), "two": service(description="the same"), "other": service(env={"A": "b"})}
    async with MCPManager(services) as manager:
        listing = await manager.get_service_tools("one")
        assert await manager.get_service_tools("two") is listing
        assert await manager.get_service_tools("other") is not listing


async def test_the_dead_are_replaced(warm: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.processes.warm.warm_clients.BACKOFF", wait_none())
    pool = warm(warm={"min": 1, "max": 1})
    await pool.has(1)
    (dead,) = servers()
    with structlog.testing.capture_logs() as logs:
        dead.kill()
        await pool.has(0)
        await pool.has(1)
        client = await pool.manager.create_client("svc")
        await pool.has(1)
    assert client.process is not None
    assert client.process.pid != dead.pid
    assert [log["event"] for log in logs if log["event"].startswith("warm")] == ["warm.failing", "warm.recovered"]


async def test_the_old_are_replaced(warm: Make) -> None:
    pool = warm(warm={"min": 1, "max": 1, "idle_ttl": 1.0})
    await pool.has(1)
    (old,) = servers()
    await pool.has(0)
    await pool.has(1)
    (new,) = servers()
    assert new.pid != old.pid


async def test_a_start_that_fails_is_tried_again_later_and_logged_once(
    warm: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.processes.warm.warm_clients.BACKOFF", wait_none())
    works = tmp_path / "works"
    script = f"""
import os, sys
open({str(tmp_path / "tries")!r}, "a").write("x")
if not os.path.exists({str(works)!r}): sys.exit("not yet")
os.execv({command("echo_server")[0]!r}, {command("echo_server")!r})
"""
    with structlog.testing.capture_logs() as logs:
        pool = warm(command=[command("echo_server")[0], "-c", script], warm={"min": 2, "max": 2})
        async with asyncio.timeout(45):
            while not (tmp_path / "tries").exists() or len((tmp_path / "tries").read_text()) < 4:
                await asyncio.sleep(0.02)
        assert pool.manager.warm("svc") == 0
        works.touch()
        await pool.has(2)
        await pool.manager.create_client("svc")
        await pool.has(2)
    events = [log for log in logs if log["event"].startswith("warm.")]
    assert [event["event"] for event in events] == ["warm.failing", "warm.recovered"]
    assert "not yet" in events[0]["error"]


async def test_a_shutdown_while_the_pool_fills_leaves_nothing(warm: Make) -> None:
    pool = warm("mute", warm={"min": 4, "max": 4})
    async with asyncio.timeout(45):
        while not any("mute" in " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)):
            await asyncio.sleep(0.01)
    await pool.manager.shutdown()


async def test_cooling_down_stops_those_that_wait_and_no_session(warm: Make) -> None:
    pool = warm(warm={"min": 2, "max": 2})
    await pool.has(2)
    client = await pool.manager.create_client("svc")
    await pool.manager.cool_down()
    assert client.process is not None
    assert [server.pid for server in servers()] == [client.process.pid]
    assert pool.manager.warm("svc") == 0
    assert (await pool.manager.create_client("svc")).start_kind == "cold"


async def test_a_busy_service_is_given_more(warm: Make) -> None:
    pool = warm("echo_server", "--slow-start", "0.3", warm={"min": 0, "max": 4})
    assert pool.manager.warm("svc") == 0
    for _ in range(3):
        await pool.manager.create_client("svc")
    await pool.has_had(1)
    assert max(pool.counts) <= 4


async def test_a_call_that_waits_is_started_before_the_pool(warm: Make) -> None:
    order: list[str] = []
    slots = Slots(2, 1)

    async def work(name: str, *, ahead: bool, done: asyncio.Event) -> None:
        async with slots.taken(ahead=ahead, timeout=10):
            order.append(name)
            await done.wait()

    first, later = asyncio.Event(), asyncio.Event()
    later.set()
    async with asyncio.TaskGroup() as group:
        group.create_task(work("ahead 1", ahead=True, done=first))
        await asyncio.sleep(0)
        group.create_task(work("ahead 2", ahead=True, done=later))
        group.create_task(work("call 1", ahead=False, done=first))
        await asyncio.sleep(0)
        cancelled = group.create_task(work("call 2", ahead=False, done=later))
        group.create_task(work("call 3", ahead=False, done=later))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
        assert order == ["ahead 1", "call 1"]
        first.set()
    assert order == ["ahead 1", "call 1", "call 3", "ahead 2"]


async def test_who_hangs_loses_its_place_and_a_cancelled_turn_is_passed_on() -> None:
    slots = Slots(1, 1)
    async with slots.taken(ahead=True, timeout=0.01), asyncio.timeout(45), slots.taken(ahead=True, timeout=5):
        waiting = asyncio.create_task(slots.taken(ahead=False, timeout=5).__aenter__())
        await asyncio.sleep(0)
    waiting.cancel()  # it is its turn, but it has not run yet
    await asyncio.wait({waiting})
    async with asyncio.timeout(45), slots.taken(ahead=True, timeout=5):
        pass


def test_what_is_wanted_grows_with_arrivals_and_start_time_and_fades() -> None:
    quick, slow, idle = (Demand(Warm(min=1, max=20)) for _ in range(3))
    quick.took(0.05)
    slow.took(2.0)
    for second in range(30):
        quick.arrived(second)
        slow.arrived(second)
    assert idle.wanted(30) == 1
    assert quick.wanted(30) == 1
    assert 4 <= slow.wanted(30) <= 6
    assert slow.wanted(60) < slow.wanted(30)
    assert slow.wanted(3000) == 1
    for _ in range(200):
        slow.arrived(3000)
    assert slow.wanted(3000) == 20


@pytest.mark.parametrize("killed", [signal.SIGKILL, signal.SIGTERM])
async def test_a_call_that_waits_does_not_mind_the_pools_troubles(warm: Make, killed: signal.Signals) -> None:
    pool = warm(warm={"min": 1, "max": 1})
    await pool.has(1)
    for server in servers():
        server.send_signal(killed)
    await pool.has(0)
    client = await pool.manager.create_client("svc")  # the pool backs off
    assert client.start_kind == "cold"
    assert client.process is not None
    assert runs(client.process.pid)


def test_warm_is_refused_when_max_is_below_min() -> None:
    with pytest.raises(ValueError, match="max"):
        MCPService(command=["x"], warm=Warm(min=2, max=1))
