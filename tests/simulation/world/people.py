"""Who speaks with the workers: telephony that publishes call events until RabbitMQ has them, and agents that ask.

They are no processes of this world that can break: they publish at the node and hear what it has for them.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Any

from consumer.broker.topology import Names
from tests.simulation.broker.node import Node
from tests.simulation.broker.queues import Queue
from tests.simulation.broker.stored import Published
from tests.simulation.broker.wire import Properties
from tests.simulation.world.nature import Nature

REPLIES = "sim.replies"
EVENTS = "sim.events"
PATIENCE = 5.0
"""How long (s) an agent waits for an answer."""


class Tap(Queue):
    """A queue whose messages are heard at once."""

    def __init__(self, node: Node, name: str, hear: Callable[[Published], None]) -> None:
        super().__init__(node, name, {}, durable=True, owner=None)
        self._hear = hear

    def publish(self, message: Published, number: int) -> None:
        self._hear(message)


@dataclass
class Asked:
    """A request, and what was answered."""

    what: str
    call: str
    at: float
    number: str
    key: str | None = None
    until: float = 0.0
    hears: bool = True
    """Whether it has a reply address."""
    answers: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    @property
    def code(self) -> str | None:
        """The error of its first answer; ``ok`` if it is none."""
        if not self.answers:
            return None
        answer = self.answers[0][1]
        return "ok" if answer["ok"] else str(answer["error"]["code"])


class People:
    """Everybody who publishes from outside."""

    def __init__(self, node: Node, nature: Nature, prefix: str, *, unconfirmed: float) -> None:
        self._node = node
        self._nature = nature
        self._prefix = prefix
        self._unconfirmed = unconfirmed
        self.events: list[tuple[float, dict[str, Any]]] = []
        """Every event that was published, in the order in which RabbitMQ has them."""
        self.asked: list[Asked] = []
        self.started: dict[str, list[float]] = {}
        """When the broker had each start of a call."""
        self.opening: dict[str, list[float]] = {}
        """The same of everything that may open a call, progress events included."""
        self.ended: dict[str, list[float]] = {}
        self._by_id: dict[str, Asked] = {}
        self._commands: dict[str, list[Asked]] = {}
        self.unsaid = 0
        """What is still to be published, or published once more."""
        node.queues[REPLIES] = Tap(node, REPLIES, self._replied)
        node.queues[EVENTS] = Tap(node, EVENTS, self._told)
        node.declare_exchange(f"{prefix}.events", "topic", {}, passive=False)
        node.exchange(f"{prefix}.events").bind(EVENTS, "#", {})

    def _told(self, message: Published) -> None:
        self.events.append((self._nature.loop.time(), json.loads(message.body)))

    def _replied(self, message: Published) -> None:
        asked = self._by_id.get(str(message.properties.correlation_id))
        if asked is not None:
            asked.answers.append((self._nature.loop.time(), json.loads(message.body)))

    def _publish(self, exchange: str, key: str, body: Any, then: Callable[[], None] | None, **properties: Any) -> None:
        """Publish until the broker has it; ``then`` is called when it does."""
        node = self._node
        if not node.up or node.alarm or Names(self._prefix).dead_letters not in node.queues:
            self._later(0.3, exchange, key, body, then, properties)
            return
        made = Properties(
            content_type="application/json",
            delivery_mode=2,
            message_id=uuid.uuid4().hex,
            timestamp=datetime.fromtimestamp(int(self._nature.wall()), UTC),
            **properties,
        )
        node.publish(Published(made, json.dumps(body).encode(), exchange, key))
        if then is not None:
            then()
        if (
            exchange.endswith(".calls") and self._nature.chance.random() < self._unconfirmed
        ):  # it does not know that it did
            self._later(self._nature.chance.uniform(0.2, 3.0), exchange, key, body, then, properties)

    def _later(self, seconds: float, exchange: str, key: str, body: Any, then: Any, properties: dict[str, Any]) -> None:
        def publish() -> None:
            self.unsaid -= 1
            self._publish(exchange, key, body, then, **properties)

        self.unsaid += 1
        loop = self._nature.loop
        loop.at(loop.time() + seconds, None, publish)

    def call_event(self, call: str, kind: str, *, to: str = "1", state: str | None = None) -> None:
        """A telephony platform tells of a call."""
        where = {"started": [self.started, self.opening], "ended": [self.ended]}.get(kind, [self.opening])

        def taken() -> None:
            for one in where:
                one.setdefault(call, []).append(self._nature.loop.time())

        event: dict[str, Any] = {"call_id": call, "kind": kind, "to": to}
        if state is not None:
            event["attributes"] = {"call_state": state}
        self._publish(f"{self._prefix}.calls", "", event, taken)

    def commanded(self, call: str) -> float:
        """When the broker had the last request of a call that may open a session; before all time if there is none."""
        return max((one.at for one in self._commands.get(call, ())), default=-inf)

    def ask(self, what: str, call: str, body: dict[str, Any], *, key: str | None = None, hears: bool = True) -> Asked:
        """An agent asks; nobody repeats it. Unless it ``hears``, there is no reply."""
        number = f"{call}/{len(self.asked)}"
        now = self._nature.loop.time()
        asked = Asked(what, call, now, number, key, now + PATIENCE, hears)
        self.asked.append(asked)
        if what != "session.close":
            self._commands.setdefault(call, []).append(asked)
        if what == "tools.call":
            body["arguments"] = {**body.get("arguments", {}), "number": f"{call}/{key}" if key else number}
            if key:
                asked.number = f"{call}/{key}"
                body["idempotency_key"] = key
        correlation = uuid.uuid4().hex
        self._by_id[correlation] = asked
        lane = "sessions" if what in ("session.create", "session.close") else "requests"

        def taken() -> None:
            asked.at = self._nature.loop.time()

        self._publish(
            f"{self._prefix}.{lane}",
            call,
            {"session_id": call, **body},
            taken,
            message_type=what,
            reply_to=REPLIES if hears else None,
            correlation_id=correlation,
        )
        return asked
