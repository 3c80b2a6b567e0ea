"""One simulated world: it is made of a plan, lives it, and is then still there to be looked at."""

import asyncio
import hashlib
import json
import random
from functools import partial
from typing import Any, cast

from consumer.broker.message import CALL_HEADER
from consumer.broker.topology import Names
from consumer.settings import Settings
from consumer.worker.exit_codes import WorkerExit
from consumer.worker.worker import Worker
from tests.simulation.broker.client import SimulatedConnection
from tests.simulation.broker.node import Node
from tests.simulation.broker.stored import Published
from tests.simulation.broker.timing import Delays
from tests.simulation.world.faults import Faults
from tests.simulation.world.loop import Process, SimulatedLoop
from tests.simulation.world.nature import Nature
from tests.simulation.world.people import People
from tests.simulation.world.plan import SPAN, Plan, Step
from tests.simulation.world.servers import Books, SimulatedServers

GRACE = 2.0
HEARTBEAT = 3.0
TOMBSTONE = 8.0

SETTLED = 45.0
"""How long (s) it may take, after the last fault, until everything is as it should be."""

SETTLED_AFTER_BROKER = 230.0
"""The same where the broker was restarted: it tries a dead letter again after three minutes."""

ON_ITS_WAY = 0.5
"""How long (s) an event of an end may be on its way, at most, while RabbitMQ gives up the link that has its recipe."""

TERMINAL = {f"mcp.session.{what}" for what in ("closed", "expired", "died", "lost")}

URL = "http://simulated/mcp"


def settings_of(room: int, drain: str) -> Settings:
    """The configuration of all workers of a world."""
    return Settings.model_validate(
        {
            "services": {
                "echo": {"url": URL},
                "second": {"url": URL},
                "brief": {"url": URL, "timeout": 4},
                "once": {"url": URL, "restore": False},
            },
            "routes": [
                {"match": {"to": "1"}, "services": ["echo"]},
                {"match": {"to": "2"}, "services": ["echo", "second"]},
                {"match": {"to": "3"}, "services": ["brief"]},
                {"match": {"to": "4"}, "services": ["once"]},
                {"match": {"to": "5"}, "services": ["echo"], "start": "answered"},
            ],
            "session": {"max_total_sessions": room, "max_sessions_per_service": room, "default_timeout": 1200},
            "worker": {
                "grace": GRACE,
                "heartbeat": HEARTBEAT,
                "tombstone": TOMBSTONE,
                "drain": drain,
                "drain_timeout": 10,
            },
        }
    )


_settings: dict[tuple[int, str], Settings] = {}


class SimulatedWorker:
    """A whole worker in a process of its own."""

    def __init__(self, world: "World", name: str, skew: float) -> None:
        self.process = Process(name, skew)
        self.started_at = world.loop.time()
        self.servers = SimulatedServers(name, world.books, world.drawn, world.plan.conditions.failing)
        self.worker: Worker | None = None
        self.exit: WorkerExit | None = None
        self.failure: BaseException | None = None
        self.leaving_since: float | None = None
        self.killed_at: float | None = None
        self.frozen_since: float | None = None
        self.disturbed: list[tuple[float, float, str]] = []
        """From when to when it did not run, or had no link that it could rely on, and by what."""

    def __repr__(self) -> str:
        return self.process.name

    @property
    def worker_id(self) -> str:
        return str(self.worker.worker_id) if self.worker is not None else self.process.name

    @property
    def was_up(self) -> bool:
        """Whether it has ever had a link with all that belongs to it."""
        return self.worker is not None and self.worker._ready.is_set()

    @property
    def running(self) -> bool:
        """Whether it is there: neither killed nor gone."""
        return self.exit is None and self.failure is None and not self.process.dead

    @property
    def serving(self) -> bool:
        return self.running and self.leaving_since is None and not self.process.frozen

    @property
    def places(self) -> bool:
        return self.worker is not None and self.worker._parts.placer.is_placing


class World:
    """The world of one plan."""

    def __init__(self, plan: Plan, *, traced: bool = False) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed ^ 0x5EED)
        self.drawn = self.chance.random
        self.loop = SimulatedLoop(random.Random(plan.seed ^ 0x10))
        self.nature = Nature(self.loop, random.Random(plan.seed ^ 0x1D))
        held = plan.conditions
        delays = Delays(random.Random(plan.seed ^ 0xDE), pace=held.pace, late=held.late)
        self.node = Node(self.loop, delays, self.chance)
        self.names = Names("mcp")
        self.books = Books()
        self.workers: list[SimulatedWorker] = []
        self.story: list[tuple[float, str, str]] = []
        self.problems: list[str] = []
        self.passed_on: set[str] = set()
        """Calls whose end has left the queue of raw events."""
        self.heard_of_ends: dict[str, list[tuple[float, float, Any]]] = {}
        """Of each call, what RabbitMQ had for whom of its ends: when, of which time, and the process."""
        self.heard_of_closings: dict[str, list[tuple[float, float, Any]]] = {}
        """The same of each session that was closed by command, or of each call whose sessions were."""
        self.lifted_at: dict[str, float] = {}
        """When a call was opened again last. Both times are by clocks of workers."""
        self.recipe_was_held: dict[str, bool] = {}
        """Of each life whose end its owner has told: whether a connection of the owner had its recipe just then."""
        self.recipes: dict[str, set[bytes]] = {}
        """Of each call, the bodies of its recipes that RabbitMQ was given."""
        self.lost_server: set[str] = set()
        """The lives whose server died of a fault."""
        self.node.on_publish = self.published
        self._hash = hashlib.blake2b(digest_size=12)
        if traced:
            self.node.trace = self._trace
        self.closes: set[str] = set()
        self.outages: list[float] = []
        self.late_letters = False
        """Whether a broker that started has held dead letters back, for minutes."""
        self.settled_at: dict[str, float] = {}
        key = (held.room, held.drain)
        if key not in _settings:
            _settings[key] = settings_of(*key)
        self._settings = _settings[key]
        self.people: People
        self.faults: Faults

    @property
    def trace_hash(self) -> str:
        return self._hash.hexdigest()

    def _trace(self, who: str, method: str, args: tuple[Any, ...]) -> None:
        self._hash.update(f"{self.loop.time():.7f}{who}{method}{args[:2]!r}".encode())

    def published(self, message: Published, queues: list[str]) -> None:
        """Note what the broker was given."""
        if message.properties.message_type == "call.ended":
            self.passed_on.add(message.routing_key)
        elif message.properties.message_type == "call.recipe":
            self.recipes.setdefault(str(message.headers[CALL_HEADER]), set()).add(message.body)
        elif message.properties.message_type in TERMINAL:
            self._end_is_told(json.loads(message.body))
        elif message.properties.message_type == "worker.endings":
            told = json.loads(message.body)
            for call in told["lifted"]:
                self.lifted_at[call] = max(told["ended"][call], self.lifted_at.get(call, 0.0))
            ended = {call: at for call, at in told["ended"].items() if call not in told["lifted"]}
            self._is_told(ended, self.heard_of_ends, queues)
        elif message.properties.message_type == "worker.closings":
            self._is_told(json.loads(message.body)["closed"], self.heard_of_closings, queues)

    def _is_told(
        self, told: dict[str, float], heard: dict[str, list[tuple[float, float, Any]]], queues: list[str]
    ) -> None:
        for queue in queues:
            for consumer in self.node.queues[queue].consumers:
                hearer = consumer.channel.client.simulated.owner
                for key, at in told.items():
                    heard.setdefault(key, []).append((self.loop.time(), at, hearer))

    def _end_is_told(self, event: dict[str, Any]) -> None:
        life, told = event["id"].encode(), event["data"]
        if told["reason"] in ("worker_gone", "crash_loop") or event["id"] in self.recipe_was_held:
            return
        inbox = self.node.queues.get(self.names.inbox(told["worker_id"]))
        was_held = any(
            one.headers.get(CALL_HEADER) == told["call_id"] and life in one.body
            for consumer in (inbox.consumers if inbox is not None else ())
            for one in consumer.channel.delivered(consumer)
        )
        self.recipe_was_held[event["id"]] = was_held or self._was_on_its_way(told["worker_id"])

    def _was_on_its_way(self, worker_id: str) -> bool:
        """Whether a worker was killed, or its link cut, while what comes from it now was on its way.

        A broker with an alarm reads what a worker has sent over a lost link when the alarm is over.
        """
        now = self.loop.time()
        disturbed = [one for worker in self.workers if worker.worker_id == worker_id for one in worker.disturbed]
        held_since = [began for began, until, what in disturbed if what == "alarm" and now <= until]
        return any(
            (what == "kill" and began <= now)
            or (what == "cut" and began <= now <= began + ON_ITS_WAY)
            or (what == "cut" and any(since <= began <= now for since in held_since))
            for began, _, what in disturbed
        )

    def tell(self, who: str, what: str) -> None:
        """Add to the story."""
        self.story.append((self.loop.time(), who, what))

    # Workers.

    def start_worker(self) -> SimulatedWorker:
        """Start one more worker."""
        skews = self.plan.conditions.skews
        number = len(self.workers)
        made = SimulatedWorker(self, f"w{number}", skews[number % len(skews)])
        self.workers.append(made)
        self.tell(made.process.name, "starts")
        self.loop.at(self.loop.time(), made.process, self._boot, made)
        return made

    def _boot(self, made: SimulatedWorker) -> None:
        connection = cast("Any", partial(SimulatedConnection, self.node))
        made.worker = Worker(self._settings, connection=connection, starter=made.servers)

        async def live() -> None:
            assert made.worker is not None
            try:
                made.exit = await made.worker.run()
                self.tell(made.process.name, f"exits with {made.exit.name}")
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, the checker tells it
                made.failure = error

        asyncio.get_running_loop().create_task(live(), name=made.process.name)

    # The plan.

    def do(self, call: str, step: Step) -> None:
        """Have somebody do something of a call."""
        _, what, more = step
        people = self.people
        self.tell(call, what)
        match what:
            case "start":
                people.call_event(call, "started", **more)
            case "answered":
                people.call_event(call, "progress", to=more["to"], state="answered")
            case "progress":
                people.call_event(call, "progress", **more)
            case "end":
                people.call_event(call, "ended")
            case "tool":
                body: dict[str, Any] = {"name": "note", "arguments": {"takes": more.get("takes", 0.01)}, "timeout": 5}
                if "service" in more:
                    body["service_name"] = more["service"]
                people.ask("tools.call", call, body, key=more.get("key"))
            case "create":
                name = more.get("service", "echo")
                asked_for: dict[str, Any] = {"service_name": name}
                if name != "brief":
                    asked_for |= {"timeout": 600, "metadata": {"asked_by": "somebody"}}
                if "service" in more:
                    asked_for["session_id"] = f"{call}#{name}"
                if "metadata" in more:
                    asked_for["metadata"] = more["metadata"]
                people.ask("session.create", call, asked_for, hears=more.get("hears", True))
            case "close":
                self.closes.add(call)
                people.ask("session.close", call, {})

    async def live(self) -> None:
        """Live the plan: what happens, then peace, then the end of all calls, then of all workers."""
        loop = self.loop
        self.people = People(self.node, self.nature, "mcp", unconfirmed=self.plan.conditions.unconfirmed)
        self.faults = Faults(self)
        for _ in range(self.plan.conditions.workers):
            self.start_worker()
        began = loop.time() + 1.0
        for call, steps in self.plan.calls.items():
            for step in steps:
                if step[0] < SPAN:
                    loop.at(began + max(0.0, step[0]), None, self.do, call, step)
        for step in self.plan.faults:
            loop.at(began + step[0], None, self.faults.do, step)
        await asyncio.sleep(1.0 + SPAN)
        await self.faults.over()
        self.tell("world", "peace")
        if not any(one.serving for one in self.workers):
            self.start_worker()

    @property
    def patience(self) -> float:
        return SETTLED_AFTER_BROKER if self.plan.broker_restarts else SETTLED

    async def until(self, holds: Any, name: str) -> bool:
        """Wait until something holds, as long as it may take; returns whether it does."""
        began = self.loop.time()
        until = began + self.patience
        pause = 0.25
        while not holds():
            if self.loop.time() >= until:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.25, 4.0)
        self.settled_at[name] = self.loop.time() - began
        return True

    def end_all(self) -> None:
        """End every call that has not been ended."""
        for call, steps in self.plan.calls.items():
            for step in steps:
                if step[0] >= SPAN and step[1] == "close":
                    self.do(call, step)
            self.do(call, (0.0, "end", {}))

    # What is where.

    def alive(self) -> dict[str, list[SimulatedWorker]]:
        """The sessions that are open, and on which workers."""
        found: dict[str, list[SimulatedWorker]] = {}
        for one in self.workers:
            if one.running and one.worker is not None:
                for session_id in one.worker._parts.sessions.sessions:
                    found.setdefault(str(session_id), []).append(one)
        return found
