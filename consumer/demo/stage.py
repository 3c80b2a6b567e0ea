"""The surroundings of the demo: two worker processes, their configuration, and names on the broker.

However the demo ends, everything is removed afterwards: the workers are told to shut down, and killed if they do not;
the queues and exchanges are deleted; the folder is removed. If the demo itself is killed, the kernel signals the
workers, if ``setpriv`` is installed.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from consumer.broker.declare import ensure
from consumer.broker.errors import BrokerError
from consumer.broker.link import Link
from consumer.broker.topology import CallExchange, Names, Topology, cluster_topology
from consumer.concurrency.task_set import cancel_and_wait
from consumer.demo.child_process import log_of, start_program
from consumer.demo.script import PARTS, SHORT_TIMEOUT, TIMEOUT
from consumer.demo.watch import DemoFailed, Watch
from consumer.settings.environment import PREFIX
from schemas.errors import SessionsError
from schemas.ids import WorkerId

WORKERS = ("demo-1", "demo-2")
LEAVING = 15.0
"""How long (s) a worker may take to shut down before it is killed."""

LOG_LINES = 5


@dataclass(frozen=True, slots=True)
class Place:
    """The folder, the broker and the prefix of the demo."""

    url: str
    prefix: str
    folder: Path

    def exchange(self, name: str) -> str:
        """Return a platform's exchange under our prefix, because the real one may be on the same broker."""
        return f"{self.prefix}.{name}"

    def call_exchanges(self) -> list[CallExchange]:
        """Return the platforms' exchanges for the workers' configuration."""
        return [
            CallExchange(self.exchange(part.exchange.name), part.exchange.type, "#")  # type: ignore[arg-type]
            for part in PARTS
            if part.exchange
        ]


def configuration(place: Place) -> dict[str, object]:
    """Return the workers' configuration: the bundled todo server, and two routes."""
    quiet = [part.source for part in PARTS if part.expires]
    return {
        "session": {"default_timeout": TIMEOUT},
        "services": {
            "todo": {
                "command": [sys.executable, "-m", "consumer.processes.todo_server"],
                "fork_server": "consumer.processes.todo_server:server.run",
                "description": "A todo list for each call",
            }
        },
        "routes": [
            {"match": {"source": quiet}, "services": ["todo"], "timeout": SHORT_TIMEOUT},
            {"services": ["todo"], "metadata": {"played_by": "mcp-sessions demo"}},
        ],
        "worker": {
            "prefix": place.prefix,
            "call_exchanges": [
                {"exchange": one.exchange, "type": one.type, "routing_key": one.routing_key}
                for one in place.call_exchanges()
            ],
        },
    }


class DemoWorker:
    """One of the demo's workers: a process that never outlives the demo."""

    def __init__(self, worker_id: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.worker_id = worker_id
        self.process = process
        self.overdue = False
        """Whether its shutdown took too long."""
        self._log = log

    def last_words(self) -> str:
        """Return the last lines of the log."""
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (it has logged nothing)"

    async def leave(self) -> int:
        """Ask the worker to leave, and return its exit code. Kill it if it takes too long."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # send_signal() would first look whether it has ended, and take its exit code from asyncio, which then
                # says 255.
                os.kill(self.process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(LEAVING):
                return await self.process.wait()
        except TimeoutError:
            self.overdue = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            return await self.process.wait()


async def _start(place: Place, worker_id: str) -> DemoWorker:
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    setpriv = shutil.which("setpriv")
    process = await start_program(
        place.folder,
        worker_id,
        configuration(place),
        "worker",
        settings={},
        environment=others | {"AMQP_URL": place.url},
        guard=[setpriv, "--pdeathsig", "TERM", "--"] if setpriv else [],
        own_session=True,  # a Ctrl-C is for the demo, which then asks them to leave
    )
    return DemoWorker(worker_id, process, log_of(place.folder, worker_id))


@contextlib.asynccontextmanager
async def place_for(url: str, prefix: str) -> AsyncIterator[Place]:
    """Make a folder with the configuration, and names on the broker. Both are deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="mcp-sessions-demo-") as folder:
        place = Place(url, prefix, Path(folder))
        try:
            await _declare_names(place)
            yield place
        finally:
            await _remove_names(place)


@contextlib.asynccontextmanager
async def workers_at(place: Place, watch: Watch) -> AsyncIterator[Sequence[DemoWorker]]:
    """Run two workers. If one ends too soon, the demo fails for this reason."""
    workers: list[DemoWorker] = []
    watching: list[asyncio.Task[None]] = []
    try:
        for worker_id in WORKERS:
            workers.append(await _start(place, worker_id))
            watching.append(asyncio.create_task(_report_end(workers[-1], watch), name=f"watch-{worker_id}"))
        yield workers
    except (DemoFailed, SessionsError):
        # What a dead worker leaves unanswered may fail before its end is noticed.
        codes = await asyncio.gather(*(worker.leave() for worker in workers))
        for worker, code in zip(workers, codes, strict=True):
            if code and not worker.overdue:
                raise _ended(worker, code) from None
        raise
    finally:
        await cancel_and_wait(*watching)
        await asyncio.gather(*(worker.leave() for worker in workers))


async def _report_end(worker: DemoWorker, watch: Watch) -> None:
    watch.fail(_ended(worker, await worker.process.wait()))


def _ended(worker: DemoWorker, code: int) -> DemoFailed:
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    return DemoFailed(f"worker {worker.worker_id} ended with {how}; its last words:\n{worker.last_words()}")


async def _declare_names(place: Place) -> None:
    """Declare what the workers would, so that the demo can follow their events from the beginning."""
    link = Link(place.url, "mcp-sessions demo setup")
    try:
        await link.open()
        await ensure(link, _topology(place))
    finally:
        await link.close()


def _topology(place: Place) -> Topology:
    return cluster_topology(Names(place.prefix), call_exchanges=place.call_exchanges())


async def _remove_names(place: Place) -> None:
    names, topology = Names(place.prefix), _topology(place)
    link = Link(place.url, "mcp-sessions demo cleanup")
    with contextlib.suppress(BrokerError, OSError):  # without a broker there is nothing left to delete
        try:
            await link.open()
            async with link.scratch() as channel:
                for queue in (*(queue.name for queue in topology.queues), *map(names.inbox, map(WorkerId, WORKERS))):
                    await channel.delete_queue(queue)
                for exchange in topology.exchanges:
                    await channel.delete_exchange(exchange.name)
        finally:
            await link.close()
