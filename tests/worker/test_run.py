"""A worker run as the command line runs it, on a real broker: its signals, its exit codes, and its port."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from structlog.testing import capture_logs
from yarl import URL

from consumer.client import SessionClient
from consumer.settings import ConfigurationError, Settings
from consumer.settings.faults import Fault
from consumer.worker import Worker, WorkerExit, run_worker
from schemas.errors import ServiceNotFound
from schemas.events import CloudEvent
from tests.harness import ECHO, WAIT, declare_events, remove_everything

ME = "w-1"
Loader = Callable[[], Settings]


@dataclass
class Runs:
    """A worker of this process, what it logs, and what the others hear of it."""

    client: SessionClient
    running: "asyncio.Task[WorkerExit]"
    logs: list[MutableMapping[str, Any]]
    events: "asyncio.Queue[CloudEvent]"

    def signal(self, number: signal.Signals) -> None:
        """Send this process a signal, as an operator or a platform does."""
        os.kill(os.getpid(), number)

    def named(self, event: str) -> list[MutableMapping[str, Any]]:
        return [one for one in self.logs if one["event"] == event]

    async def logged(self, event: str) -> MutableMapping[str, Any]:
        """Wait for a log record."""
        async with asyncio.timeout(WAIT):
            while not (found := self.named(event)):
                assert not self.running.done(), f"it ended without {event}: {self.logs}"
                await asyncio.sleep(0.02)
        return found[0]

    async def code(self) -> WorkerExit:
        async with asyncio.timeout(WAIT):
            return await self.running

    async def told(self, last: str) -> list[str]:
        """The types of the events until the last, in their order."""
        types = [""]
        async with asyncio.timeout(WAIT):
            while types[-1] != last:
                types.append((await self.events.get()).type.removeprefix("mcp."))
        return types[1:]


@pytest.fixture
def make(amqp_url: str, prefix: str, tmp_path: Path) -> Callable[..., Settings]:
    """Make settings of the worker; ``worker`` are those beside its id and its prefix."""

    def made(worker: dict[str, Any] | None = None, **more: Any) -> Settings:
        own = {"worker_id": ME, "prefix": prefix, **(worker or {})}
        given = {"amqp_url": amqp_url, "services": {"echo": {"command": ECHO}}, "session": {}, "worker": own} | more
        given["session"] = {"sandbox_dir": str(tmp_path), **given["session"]}
        return Settings.model_validate(given)

    return made


def nothing_to_load() -> Settings:
    raise AssertionError("nobody has sent SIGHUP")


@asynccontextmanager
async def runs(settings: Settings, load: Loader = nothing_to_load) -> AsyncIterator[Runs]:
    """Run a worker that is ready; nothing of it is left at the end."""
    url, prefix = settings.amqp_url.get_secret_value(), settings.worker.prefix
    await declare_events(url, prefix)
    try:
        with capture_logs() as logs:  # first: a client without a configured log drops all but warnings
            async with SessionClient(url, prefix=prefix) as client, client.following("#") as events:
                running = asyncio.create_task(run_worker(settings, load), name="run-worker")
                one = Runs(client, running, logs, events)
                try:
                    await one.logged("worker.ready")
                    yield one
                finally:
                    while not running.done():
                        one.signal(signal.SIGINT)
                        await asyncio.wait({running}, timeout=1)
    finally:
        await remove_everything(url, prefix, [ME])


async def test_sigterm_drains_and_what_it_does_is_heard_in_its_order(make: Callable[..., Settings]) -> None:
    async with runs(make()) as one:
        await one.client.create("c-1", "echo")
        servers = [child for child in psutil.Process().children(recursive=True) if ECHO[-1] in child.cmdline()]
        assert servers
        one.signal(signal.SIGTERM)
        assert await one.code() is WorkerExit.DRAINED
        assert not any(server.is_running() for server in servers), "its MCP servers end before it does"
        told = await one.told("worker.stopped")
        assert told == ["worker.started", "session.created", "worker.draining", "session.closed", "worker.stopped"]
        assert (await one.logged("worker.draining"))["signal"] == "SIGTERM"
        assert (await one.logged("worker.stopped"))["drained"] is True


async def test_a_call_that_takes_longer_than_it_may_drain_is_the_fourth_code(make: Callable[..., Settings]) -> None:
    async with runs(make({"drain_timeout": 1})) as one:
        async with busy(one.client):
            one.signal(signal.SIGTERM)
            assert await one.code() is WorkerExit.DRAIN_TIMED_OUT
        assert (await one.logged("worker.stopped"))["drained"] is False


async def test_a_second_signal_hurries_and_one_that_the_platform_repeats_does_not(
    make: Callable[..., Settings],
) -> None:
    async with runs(make({"drain_timeout": 3600})) as one, busy(one.client):
        one.signal(signal.SIGTERM)
        await one.logged("worker.draining")
        one.signal(signal.SIGTERM)
        await one.logged("worker.draining_already")
        await asyncio.wait({one.running}, timeout=1)
        assert not one.running.done(), "its call has an hour"
        one.signal(signal.SIGINT)
        assert await one.code() is WorkerExit.DRAIN_TIMED_OUT
        assert (await one.logged("worker.hurrying"))["signal"] == "SIGINT"


@asynccontextmanager
async def busy(client: SessionClient) -> AsyncIterator[None]:
    """Have a tool called that takes an hour."""
    begun: asyncio.Queue[object] = asyncio.Queue()
    arguments = {"steps": 7200, "interval": 0.5}
    call = client.call_tool("c-1", "progress", arguments, service_name="echo", timeout=3600, on_progress=begun.put)
    calling = asyncio.create_task(call)
    async with asyncio.timeout(WAIT):
        await begun.get()
    try:
        yield
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


async def test_sighup_applies_what_the_loader_returns_and_nothing_of_what_is_wrong(
    make: Callable[..., Settings],
) -> None:
    wrong = ConfigurationError([Fault("worker.grace", "is no number")])
    loaded: list[Settings | ConfigurationError] = [
        wrong, make({"grace": 9.0}, services={"other": {"command": ECHO}})
    ]  # fmt: skip

    def load() -> Settings:
        next_one = loaded.pop(0)
        if isinstance(next_one, ConfigurationError):
            raise next_one
        return next_one

    async with runs(make(), load) as one:
        one.signal(signal.SIGHUP)
        assert (await one.logged("settings.not_reloaded"))["faults"] == 1
        assert (await one.logged("settings.fault"))["key"] == "worker.grace"
        await one.client.create("before", "echo")
        one.signal(signal.SIGHUP)
        assert (await one.logged("settings.reloaded"))["services"] == ["other"]
        assert (await one.logged("settings.need_restart"))["settings"] == ["worker.grace"]
        await one.client.create("after", "other")
        with pytest.raises(ServiceNotFound):
            await one.client.create("late", "echo")
        assert (await one.client.call_tool("before", "echo", {"text": "on"})).text == "on"


async def test_its_port_tells_that_it_leaves_until_it_has_left(make: Callable[..., Settings]) -> None:
    async with runs(make({"http_port": 0, "drain": "wait", "drain_timeout": 40})) as one, httpx2.AsyncClient() as http:
        url = f"http://127.0.0.1:{(await one.logged('http.listening'))['port']}/readyz"
        async with asyncio.timeout(WAIT):
            while (await http.get(url)).status_code != 200:  # its first probe is on its way
                await asyncio.sleep(0.05)
        await one.client.create("c-1", "echo")
        one.signal(signal.SIGTERM)
        await one.logged("worker.waiting")
        leaving = await http.get(url)
        assert (leaving.status_code, leaving.json()["state"]) == (503, "draining")
        await one.client.close("c-1")
        assert await one.code() is WorkerExit.DRAINED
        with pytest.raises(httpx2.ConnectError):
            await http.get(url)


async def test_a_port_that_another_process_has_is_a_wrong_configuration(make: Callable[..., Settings]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, capture_logs() as logs:
        port = other.getsockname()[1]
        code = await run_worker(make({"http_port": port}), nothing_to_load)
    assert code is WorkerExit.BAD_CONFIGURATION
    assert [one["event"] for one in logs] == ["http.cannot_listen"], "it has not even begun"
    assert f"port {port}" in logs[0]["error"]


async def test_a_second_process_of_its_id_ends_with_a_wrong_configuration(make: Callable[..., Settings]) -> None:
    async with runs(make()) as first:
        async with asyncio.timeout(WAIT):
            assert await Worker(make()).run() is WorkerExit.BAD_CONFIGURATION
        taken = await first.logged("worker.id_taken")
        assert (taken["worker_id"], taken["pid"]) == (ME, os.getpid())
        assert not first.running.done()
        await first.client.create("c-1", "echo")


@pytest.mark.parametrize(
    ("wrong", "event"),
    [({"port": 1}, "broker.unreachable"), ({"password": "wrong"}, "broker.refused")],
    ids=["not there", "refuses it"],
)
async def test_without_a_broker_it_ends_with_the_third_code(
    make: Callable[..., Settings], amqp_url: str, wrong: dict[str, Any], event: str
) -> None:
    url = URL(amqp_url)
    right = {"user": url.user, "password": url.password, "host": url.host, "port": url.port}
    elsewhere = URL.build(scheme=url.scheme, path=url.path, **(right | wrong))
    settings = make({"connect_timeout": 1}, amqp_url=str(elsewhere))
    with capture_logs() as logs:
        async with asyncio.timeout(WAIT):
            assert await run_worker(settings, nothing_to_load) is WorkerExit.BROKER_UNREACHABLE
    assert event in [one["event"] for one in logs]
