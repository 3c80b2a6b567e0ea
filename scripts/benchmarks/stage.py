"""Workers to measure, as they run in production: processes, logging to a file; and a client that hears what they tell.

Unlike the tests' harness nothing here reads logs or looks through lists of events: what observes shares the cores
with what is observed.
"""

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from consumer.client import SessionClient
from consumer.demo.child_process import start_program
from schemas.events import CloudEvent
from scripts.benchmarks.measuring import end_all, until
from tests.harness import declare_events, remove_everything

READY = 60.0
"""The bound (s) of a worker's start."""


@dataclass
class Stage:
    """Workers of one prefix, and the client that asks them."""

    client: SessionClient
    prefix: str
    folder: Path
    workers: list[psutil.Process] = field(default_factory=list)
    told: dict[tuple[str, str], CloudEvent] = field(default_factory=dict)
    """The events so far, by what happened and to whom."""
    _awaited: dict[tuple[str, str], asyncio.Future[CloudEvent]] = field(default_factory=dict)

    async def hear(self, events: "asyncio.Queue[CloudEvent]") -> None:
        """Take events until cancelled."""
        while True:
            event = await events.get()
            key = (event.type.rpartition(".")[2], event.subject or "")
            self.told[key] = event
            if (waiting := self._awaited.pop(key, None)) is not None and not waiting.done():
                waiting.set_result(event)

    async def event(self, what: str, subject: str, *, within: float = 60.0) -> CloudEvent:
        """Wait for an event; also one that has come already."""
        if (event := self.told.get((what, subject))) is not None:
            return event
        waiting = self._awaited.setdefault((what, subject), asyncio.get_running_loop().create_future())
        async with asyncio.timeout(within):
            return await waiting

    def count(self, what: str) -> int:
        """How many events of a kind have come."""
        return sum(1 for kind, _ in self.told if kind == what)

    async def warm(self, service: str, count: int) -> None:
        """Wait until so many processes wait for calls, on all workers together."""

        async def enough() -> bool:
            workers = (await self.client.list_workers()).workers
            waiting = sum(worker.services[service].warm for worker in workers if service in worker.services)
            return waiting >= count

        await until(enough, f"{count} warm processes of {service}", within=120, pause=0.02)

    def servers(self) -> list[psutil.Process]:
        """Every process below the workers, as of now."""
        return [child for worker in self.workers for child in _children(worker)]

    async def start(self, configuration: dict[str, Any], *options: str) -> None:
        """Start a worker and wait until it takes calls."""
        name = f"w{len(self.workers)}-{secrets.token_hex(2)}"
        process = await self._spawn(name, configuration, "worker", *options)
        self.workers.append(psutil.Process(process.pid))
        self._names.append(name)
        ready = asyncio.ensure_future(self.event("started", name, within=READY))
        ended = asyncio.ensure_future(process.wait())
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not ready.done():
            ready.cancel()
            raise RuntimeError(f"the worker ended while it started:\n{(self.folder / f'{name}.log').read_text()}")
        await ready

    async def serve(self, configuration: dict[str, Any]) -> psutil.Process:
        """Start a gateway as a process of its own; it is not ready yet."""
        process = await self._spawn(f"g{len(self._processes)}", configuration, "gateway")
        return psutil.Process(process.pid)

    async def _spawn(self, name: str, configuration: dict[str, Any], *command: str) -> asyncio.subprocess.Process:
        process = await start_program(self.folder, name, configuration, *command, settings={"PREFIX": self.prefix})
        self._processes.append(process)
        return process

    _processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)

    async def end(self, url: str) -> None:
        """End the workers and gateways with all that is below them, and delete what they have on the broker."""
        left = self.servers()
        for process in self._processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in self._processes))
        await asyncio.to_thread(end_all, left, timeout=30.0)
        await remove_everything(url, self.prefix, self._names)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@asynccontextmanager
async def running(
    services: dict[str, Any], *, workers: int = 1, options: Sequence[str] = (), **sections: Any
) -> AsyncIterator[Stage]:
    """Workers with these services and options, on a prefix of their own; nothing of it is left at the end."""
    url = os.environ["AMQP_URL"]
    limits = {"max_sessions_per_service": 10_000, "max_total_sessions": 10_000}
    configuration = {"services": services, "session": limits} | sections
    prefix = f"bench-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="mcp-sessions-bench-") as folder:
        await declare_events(url, prefix)
        async with SessionClient(url, prefix=prefix) as client, client.following("#") as events:
            stage = Stage(client, prefix, Path(folder))
            hearing = asyncio.create_task(stage.hear(events), name="hear")
            try:
                for _ in range(workers):
                    await stage.start(configuration, *options)
                yield stage
            finally:
                hearing.cancel()
                await asyncio.gather(hearing, return_exceptions=True)
                await stage.end(url)


def named(prefix: str, count: int) -> Iterator[str]:
    """Names of sessions."""
    return (f"{prefix}-{number}" for number in range(count))


async def in_groups(call: Callable[[str], Awaitable[Any]], names: list[str], at_once: int) -> None:
    """Do it for every name, so many at once."""
    left = iter(names)

    async def one_after_the_other() -> None:
        for name in left:
            await call(name)

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
