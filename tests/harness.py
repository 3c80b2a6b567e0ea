"""Real workers for tests: processes on a prefix of their own, and what they told."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from consumer.broker.link import Link
from consumer.broker.topology import Names, cluster_topology
from consumer.client import SessionClient
from schemas.events import CloudEvent
from schemas.ids import WorkerId
from tests import programs

WAIT = 45.0
"""The bound (s) of every wait for something that should happen soon."""

START = 90.0
"""The bound (s) of a worker's start: it imports a lot, beside whatever else a test runs."""

ROOT = Path(__file__).resolve().parents[1]
ECHO = [sys.executable, "-S", str(ROOT / "tests" / "servers" / "echo_server.py")]
FORKED = {"services": {"echo": {"command": ECHO, "fork_server": "echo_server:main"}}}
"""For hundreds of servers that differ in nothing but the call; a fork costs a quarter of the processor of a start."""
QUICK_STATISTICS = "-rabbit quorum_tick_interval 300"
"""Arguments of a node: its quorum queues tell their numbers every 0.3 s instead of every 5."""
OPEN = {"kind": "limits", "user": "worker"}
"""A sandbox through which a test can look: its processes have the numbers and the user that they have outside."""


def config(**sections: Any) -> dict[str, Any]:
    """A configuration with one fast service ``echo``, unless ``services`` says otherwise."""
    return {"services": {"echo": {"command": ECHO}}} | sections


class WorkerProcess:
    """A worker in a process of its own."""

    def __init__(self, process: programs.Process, log: Path, changed: Callable[[], None]) -> None:
        self.process = process
        self._told = changed
        self._log = log
        self.records: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name="worker-log")

    async def _read(self) -> None:
        assert self.process.stderr is not None
        with self._log.open("w") as log:
            async for line in self.process.stderr:
                log.write(line.decode())
                log.flush()
                try:
                    self.records.append(json.loads(line))
                except ValueError:
                    self.records.append({"event": line.decode().rstrip()})
                self._changed.set()
                self._told()
        self._changed.set()

    async def logged(self, event: str, *, within: float = WAIT, **fields: Any) -> dict[str, Any]:
        """Wait for a log record."""
        async with asyncio.timeout(within):
            while True:
                self._changed.clear()
                for record in self.records:
                    if record.get("event") == event and all(record.get(k) == v for k, v in fields.items()):
                        return record
                if self._reading.done():
                    raise AssertionError(f"the worker ended without {event}:\n{self._log.read_text()}")
                await self._changed.wait()

    @property
    def worker_id(self) -> str:
        return next(str(one["worker_id"]) for one in self.records if one.get("event") == "worker.ready")

    def children(self) -> list[psutil.Process]:
        """Every process below the worker, as of now."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    async def terminate(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> int:
        if self.process.returncode is None:
            self.process.kill()
        return await self.ended()

    async def ended(self) -> int:
        async with asyncio.timeout(90):
            code = await self.process.wait()
            await self._reading
        return code


class Cluster:
    """Workers that share a prefix, a client, and every event that they published."""

    def __init__(self, url: str, prefix: str, folder: Path) -> None:
        self.url = url
        self.prefix = prefix
        self.folder = folder
        self.anew = False
        """Whether workers are to be started by a new interpreter, see :mod:`tests.programs`."""
        self.workers: list[WorkerProcess] = []
        self.events: list[CloudEvent] = []
        self._changed = asyncio.Event()
        self.client: SessionClient

    async def start(self, configuration: dict[str, Any] | None = None, *options: str, **env: str) -> WorkerProcess:
        """Start a worker and wait until it is ready."""
        worker = await self.spawn(configuration, *options, **env)
        await worker.logged("worker.ready", within=START)
        return worker

    async def spawn(self, configuration: dict[str, Any] | None = None, *options: str, **env: str) -> WorkerProcess:
        """Start a worker and do not wait."""
        return await self._spawn(configuration, *programs.WORKER, *options, **env)

    async def spawn_gateway(self, **env: str) -> WorkerProcess:
        """Start a gateway in a process of its own and do not wait."""
        return await self._spawn(None, str(programs.PROGRAM), "gateway", **env)

    async def _spawn(self, configuration: dict[str, Any] | None, *command: str, **env: str) -> WorkerProcess:
        number = len(self.workers)
        path = self.folder / f"worker-{number}.json"
        path.write_text(json.dumps(configuration or config()))
        settings = {
            "AMQP_URL": self.url,
            "MCP_SESSIONS_CONFIG": str(path),
            "MCP_SESSIONS_PREFIX": self.prefix,
            "MCP_SESSIONS_LOG_FORMAT": "json",
        }
        process = await programs.start(
            *command,
            env={**os.environ, **settings, **env},
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
            anew=self.anew,
        )
        worker = WorkerProcess(process, self.folder / f"worker-{number}.log", self._changed.set)
        self.workers.append(worker)
        return worker

    async def follow(self, queue: "asyncio.Queue[CloudEvent]") -> None:
        while True:
            self.events.append(await queue.get())
            self._changed.set()

    def of(self, what: str, **data: Any) -> list[CloudEvent]:
        """The events of a type whose data has these values."""
        return [
            event
            for event in self.events
            if event.type.endswith(f".{what}") and all(event.data.get(key) == value for key, value in data.items())
        ]

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The log records of all workers with these values."""
        return [
            record
            for worker in self.workers
            for record in worker.records
            if record.get("event") == event and all(record.get(key) == value for key, value in fields.items())
        ]

    async def until(self, condition: Callable[[], Any], *, within: float = WAIT) -> Any:
        """Wait until what the events tell makes ``condition`` true; returns its value."""
        try:
            async with asyncio.timeout(within):
                while True:
                    self._changed.clear()
                    if value := condition():
                        return value
                    await self._changed.wait()
        except TimeoutError:
            told = "\n".join(f"{event.type} {event.subject} {event.data.get('reason', '')}" for event in self.events)
            raise AssertionError(f"it did not happen within {within} s; events so far:\n{told}") from None

    async def event(self, what: str, *, within: float = WAIT, **data: Any) -> CloudEvent:
        """Wait for an event."""
        found: CloudEvent = (await self.until(lambda: self.of(what, **data), within=within))[0]
        return found


@asynccontextmanager
async def cluster(url: str, prefix: str) -> AsyncIterator[Cluster]:
    """A prefix of its own, with a client that hears every event; nothing of it is left at the end."""
    with tempfile.TemporaryDirectory(prefix="mcp-sessions-test-") as folder:
        made = Cluster(url, prefix, Path(folder))
        await declare_events(url, prefix)
        async with SessionClient(url, prefix=prefix) as made.client:
            async with made.client.following("#") as queue:
                following = asyncio.create_task(made.follow(queue), name="follow")
                try:
                    yield made
                finally:
                    left = []
                    for worker in made.workers:
                        left += worker.children()
                        await worker.kill()
                    _, alive = psutil.wait_procs(left, timeout=15)
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
                    await remove_everything(url, prefix, [worker_id_of(worker) for worker in made.workers])
            assert not alive, f"processes left behind: {alive}"


async def declare_events(url: str, prefix: str) -> None:
    """Declare what a client needs that follows events before the first worker has come."""
    names = Names(prefix)
    link = Link(url, "events")
    await link.open()
    try:
        channel = await link.channel()
        for exchange in cluster_topology(names).exchanges:
            if exchange.name == names.events:
                await channel.declare_exchange(exchange)
    finally:
        await link.close()


async def remove_everything(url: str, prefix: str, workers: list[str]) -> None:
    """Delete every queue and exchange of a prefix."""
    names = Names(prefix)
    shared = cluster_topology(names)
    link = Link(url, "cleanup")
    await link.open()
    try:
        channel = await link.channel()
        for queue in [*(queue.name for queue in shared.queues), *(names.inbox(WorkerId(worker)) for worker in workers)]:
            await channel.delete_queue(queue)
        for exchange in shared.exchanges:
            await channel.delete_exchange(exchange.name)
    finally:
        await link.close()


def worker_id_of(worker: WorkerProcess) -> str:
    return next((str(one["worker_id"]) for one in worker.records if one.get("event") == "worker.starting"), "")
