"""The stage of a fault run: a broker that may be broken, workers, and a log of events that misses nothing."""

import asyncio
import os
import secrets
import signal
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from consumer.broker.declare import apply
from consumer.broker.errors import BrokerError
from consumer.broker.link import Link
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.supervisor import Supervisor
from consumer.broker.topology import Binding, Names, Queue, cluster_topology
from consumer.client import SessionClient
from infra.broker import PrivateBroker
from schemas.errors import ClientError, SessionsError
from schemas.events import CloudEvent
from schemas.sessions import SessionInfo
from tests.harness import ECHO, Cluster, WorkerProcess, worker_id_of

GRACE = 2.0
HEARTBEAT = 2


def faulty(**sections: Any) -> dict[str, Any]:
    """A configuration with short grace and heartbeat; sections are merged over it."""
    base: dict[str, Any] = {
        "services": {"echo": {"command": ECHO}},
        "session": {"max_sessions_per_service": 400, "max_total_sessions": 400},
        "worker": {"grace": GRACE, "heartbeat": HEARTBEAT, "admission_wait": 5, "drain_timeout": 20},
    }
    return {name: base.get(name, {}) | sections.get(name, {}) for name in base | sections}


class EventLog:
    """Reads a durable queue that was bound before everything; at least once, over any number of connections."""

    def __init__(self, url: str, names: Names, changed: Any) -> None:
        self.events: list[CloudEvent] = []
        self.began: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        """Which sessions were ever open."""
        self._ids: set[tuple[str, str]] = set()
        self.duplicates = 0
        self._names = names
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()
        self.queue = Queue(f"{names.prefix}.test-log", "every event", {"x-queue-type": "quorum"})
        self._supervisor = Supervisor(
            url, "event log", Publisher(), attach=self._attach, detached=self._detached, heartbeat=5
        )
        self._running: asyncio.Task[None] | None = None
        self.caught_up = asyncio.Event()

    async def start(self) -> None:
        self._running = asyncio.create_task(self._supervisor.run(connect_timeout=30), name="event-log")
        async with asyncio.timeout(30):
            await self._supervisor.up.wait()

    async def stop(self) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.gather(self._running, *self._tasks, return_exceptions=True)

    async def _attach(self, link: Link) -> None:
        channel = await link.channel()
        await apply(channel, cluster_topology(self._names, grace=GRACE), link=link)
        await channel.declare_queue(self.queue)
        await channel.bind(Binding(self._names.events, self.queue.name, "#"))
        await channel.consume(self.queue.name, self._take)

    async def _detached(self) -> None:
        pass

    def _take(self, delivery: Delivery) -> None:
        event = CloudEvent.model_validate_json(delivery.message.body)
        if (event.source, event.id) in self._ids:  # what makes it a duplicate (CloudEvents 1.0, id)
            self.duplicates += 1
        else:
            self._ids.add((event.source, event.id))
            self.events.append(event)
            if event.type == "mcp.session.created":
                self.began[str(event.subject)].set()
        task = asyncio.create_task(delivery.ack(), name="event-log-ack")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._changed()


class CountingClient(SessionClient):
    """A client that counts how often each of its requests is answered."""

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix=prefix, connect_timeout=30)
        self.answers: Counter[str] = Counter()
        self._tool_calls: dict[str, set[bytes]] = {}
        self._take = self._connection._heard
        self._connection._heard = self._count  # type: ignore[method-assign]

    def _count(self, delivery: Delivery) -> None:
        if delivery.message.correlation_id:
            self.answers[delivery.message.correlation_id] += 1
            if delivery.type == "tools.call.reply":
                self._tool_calls.setdefault(delivery.message.correlation_id, set()).add(delivery.message.body)
        self._take(delivery)

    @property
    def tool_calls_answered_twice(self) -> list[set[bytes]]:
        """The answers of each tool call that was answered with this and with that.

        The same answer once more is none: its worker lost the link, and does not know whether it arrived. Nor is one
        that it is unknown whether the tool call was executed: it contradicts no other.
        """
        said = ({one for one in answers if b'"OUTCOME_UNKNOWN"' not in one} for answers in self._tool_calls.values())
        return [answers for answers in said if len(answers) > 1]

    @property
    def commands_answered_twice(self) -> int:
        """How many requests beside tool calls; a command whose worker dies is repeated on another."""
        return len({asked for asked, count in self.answers.items() if count > 1} - self._tool_calls.keys())


class Stage(Cluster):
    """Workers on a broker that the test may break."""

    def __init__(self, broker: PrivateBroker, prefix: str, folder: Path) -> None:
        super().__init__(broker.url, prefix, folder)
        self.broker = broker
        self.names = Names(prefix)
        self.log = EventLog(broker.url, self.names, self._changed.set)
        self.events = self.log.events
        self.servers: dict[int, psutil.Process] = {}
        """Every MCP server that was ever seen below a worker."""
        self.killed: set[str] = set()
        """Workers that were ended without being asked."""
        self.frozen: set[str] = set()
        """Workers that were stopped, or cut off, for longer than the broker waits."""
        self.deposed = 0
        """Placers that left under load. A message that one has placed and not acknowledged comes to the next one."""
        self.counting = CountingClient(broker.url, prefix)
        self.client = self.counting
        self.accepted: set[str] = set()
        """Calls whose start the broker has confirmed."""
        self.ended: set[str] = set()
        """Calls whose end the broker has confirmed."""
        self.poison = 0
        self.poison_repeated = 0
        self.outages = 0
        self.done: list[tuple[datetime, str]] = []
        """What was done to workers and to the broker, and when."""
        self.statistics_age = 1.0
        """How old (s) what the broker tells of its queues may be."""

    @property
    def alive(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.process.returncode is None]

    async def spawn(self, configuration: dict[str, Any] | None = None, *options: str, **env: str) -> WorkerProcess:
        made = configuration or faulty()
        sandbox = self.folder / "sandbox"
        sandbox.mkdir(exist_ok=True)
        made = made | {"session": made.get("session", {}) | {"sandbox_dir": str(sandbox)}}
        return await super().spawn(made, *options, TMPDIR=str(sandbox), **env)

    def look(self) -> None:
        """Remember the processes that are there now."""
        for worker in self.alive:
            for child in worker.children():
                self.servers.setdefault(child.pid, child)

    # Calls.

    async def publish(self, call_id: str, kind: str, **more: Any) -> None:
        """Publish a call event until the broker has it, as a telephony backend would."""
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.client.publish_call_event({"call_id": call_id, "kind": kind, **more})
                    break
                except ClientError:
                    await asyncio.sleep(0.1)  # the platform's own retry
        (self.ended if kind == "ended" else self.accepted).add(call_id)

    async def start_calls(self, calls: list[str]) -> None:
        await asyncio.gather(*(self.publish(call, "started") for call in calls))
        await self.until(lambda: {e.subject for e in self.of("created")} >= set(calls), within=60)
        self.look()

    async def end_calls(self, calls: list[str]) -> None:
        await asyncio.gather(*(self.publish(call, "ended") for call in calls))

    async def try_tool(self, call_id: str, name: str, arguments: Any = None, *, timeout: float = 5) -> Any:
        """The tool's result, or the error."""
        try:
            return await self.client.call_tool(call_id, name, arguments, timeout=timeout)
        except SessionsError as error:
            return error

    async def counts(self, calls: list[str]) -> dict[str, Any]:
        """What each session's counter says: it counts its own calls, so it tells whether the state was kept."""
        answers = await asyncio.gather(*(self.try_tool(call, "counter", timeout=20) for call in calls))
        return {
            call: answer if isinstance(answer, Exception) else answer.structured_content["count"]
            for call, answer in zip(calls, answers, strict=True)
        }

    async def sessions(self) -> dict[str, SessionInfo]:
        """Every open session, once all present workers have answered."""
        async with asyncio.timeout(30):
            while True:
                with suppress(SessionsError):
                    listed = await self.client.list_sessions()
                    if listed.complete:
                        return dict(listed.sessions)
                await asyncio.sleep(0.2)

    async def calls_of(self, worker: WorkerProcess) -> set[str]:
        """The calls whose sessions are open on a worker."""
        return {call for call, info in (await self.sessions()).items() if info.worker_id == worker.worker_id}

    async def sessions_are(self, calls: Collection[str]) -> dict[str, SessionInfo]:
        """The open sessions, when they are these; workers that were away are heard of one after the other."""
        listed: dict[str, SessionInfo] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(15):
                while set(listed := await self.sessions()) != set(calls):
                    await asyncio.sleep(0.3)
        assert set(listed) == set(calls)
        return listed

    async def send_poison(self, bodies: list[tuple[str, str, str | None, bytes]]) -> None:
        """Publish (exchange, routing key, type, body), each of which must end in the dead-letter queue."""
        for exchange, key, kind, body in bodies:
            self.poison += 1
            while True:
                try:
                    await self.client._connection._publisher.publish(Message(body=body, type=kind), exchange, key)
                    break
                except BrokerError:
                    self.poison_repeated += 1  # whether it arrived is unknown
                    await asyncio.sleep(0.1)

    # Workers.

    def note(self, what: str, worker: WorkerProcess | None = None) -> None:
        """Remember what is done, for the report."""
        self.done.append((datetime.now(UTC), what if worker is None else f"{what} {worker_id_of(worker)}"))

    async def kill_worker(self, worker: WorkerProcess) -> None:
        self.look()
        self.note("kill", worker)
        self.killed.add(worker_id_of(worker))
        await worker.kill()

    async def send_home(self, worker: WorkerProcess) -> int:
        """SIGTERM, and wait until the worker has ended; returns its exit code."""
        self.look()
        self.note("tell to leave", worker)
        code = await worker.terminate()
        self.note("left:", worker)
        return code

    def freeze(self, worker: WorkerProcess) -> None:
        self.look()
        self.note("freeze", worker)
        self.frozen.add(worker_id_of(worker))
        worker.process.send_signal(signal.SIGSTOP)

    def thaw(self, worker: WorkerProcess) -> None:
        self.note("thaw", worker)
        with suppress(ProcessLookupError):
            worker.process.send_signal(signal.SIGCONT)

    async def break_down(self, method: str) -> None:
        """Call a (blocking) method of the broker."""
        self.statistics_age = 6.0
        self.outages += 1
        self.note(f"broker: {method}")
        await asyncio.to_thread(getattr(self.broker, method))
        self.note(f"broker: {method} is done")

    async def leave(self) -> list[int]:
        """SIGTERM to all that are left, one after the other has ended; their exit codes."""
        return [await self.send_home(worker) for worker in self.alive]


@asynccontextmanager
async def stage(broker: PrivateBroker, *, prefix: str | None = None) -> AsyncIterator[Stage]:
    """A stage; whatever the test did, no process of it is left."""
    prefix = prefix or f"f{os.getpid()}-{secrets.token_hex(3)}"
    with tempfile.TemporaryDirectory(prefix="mcp-sessions-fault-") as folder:
        made = Stage(broker, prefix, Path(folder))
        await made.log.start()
        try:
            async with made.client:
                try:
                    yield made
                finally:
                    for worker in made.alive:
                        made.thaw(worker)
                        await worker.kill()
                    _, alive = await asyncio.to_thread(
                        partial(psutil.wait_procs, list(made.servers.values()), timeout=5)
                    )
                    for process in alive:
                        with suppress(psutil.NoSuchProcess):
                            process.kill()
        finally:
            await made.log.stop()
            if keep := os.environ.get("KEEP_FAULT_LOGS"):
                test = os.environ["PYTEST_CURRENT_TEST"].rpartition("::")[2].partition(" ")[0]
                keep_logs(made, Path(keep) / test)


def keep_logs(made: Stage, folder: Path) -> None:
    """Copy what the workers logged and what happened, to look at after a failure."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in made.folder.glob("worker-*.log"):
        (folder / path.name).write_bytes(path.read_bytes())
    with (folder / "events.jsonl").open("wb") as out:
        for event in made.events:
            out.write(event.dump() + b"\n")
