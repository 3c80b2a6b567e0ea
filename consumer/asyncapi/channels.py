"""Channels: each exchange and each queue of the topology, with the messages that can arrive there.

``SENT`` says which message is published where. Its further way follows from the bindings, the alternate exchanges and
the dead-letter exchanges.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, get_args

from consumer.asyncapi.payloads import CALL_EVENT, DEAD_LETTER, PLATFORM_EVENT, UNKNOWN_REPLY, Schema
from consumer.broker.topology import Binding, Exchange, Names, Queue, Topology, inbox, requests_queue, worker_queue
from schemas.event_data import EVENTS
from schemas.ids import WorkerId
from schemas.interim import INTERIM
from schemas.internal import (
    ANSWERS,
    ClosedSessions,
    EndedCalls,
    FiguresScatter,
    OwnerCheck,
    PresenceReport,
    PresenceRequest,
    Probe,
    Recipe,
    SessionsScatter,
)
from schemas.replies import REPLY_SUFFIX
from schemas.requests import REQUESTS, CallEnded, ClusterRequest, Lifecycle, Use

BINDING = "0.3.0"
"""The version of AsyncAPI's AMQP bindings."""

REPLIES: Final = "replies"
SESSION_EVENTS: Final = "events.session"
WORKER_EVENTS: Final = "events.worker"
_ANYBODY = WorkerId("{worker_id}")


@dataclass(frozen=True, slots=True)
class DocumentChannel:
    """One channel of the document. ``messages`` are the types of messages that can arrive there."""

    name: str
    description: str
    address: str | None
    binding: Schema
    messages: tuple[str, ...]
    internal: bool = False


PARAMETERS: dict[str, str] = {
    "routing_key": "Any.",
    "call": "The routing key of the call: the `session_id` up to the first `#`, or `sha256:` and the hexadecimal "
    "SHA-256 of that if it has more than 200 bytes.",
    "what": "The last word of the event's type.",
    "service_name": "The service of the session.",
    "worker_id": "The worker.",
    "connection": "One connection of the worker.",
}


def channels(names: Names, topology: Topology) -> tuple[DocumentChannel, ...]:
    """Return every channel, named ``exchange.<name>`` or ``queue.<name>``, without the prefix."""
    return tuple(_Channels(names, topology).all())


class _Channels:
    def __init__(self, names: Names, topology: Topology) -> None:
        self.names = names
        self.topology = topology
        self.inbox = inbox(names, _ANYBODY)
        self.fast = requests_queue(names, _ANYBODY, "{connection}")
        self.worker = worker_queue(names, _ANYBODY, "{connection}")
        self.queues = (*topology.queues, self.inbox, self.fast, self.worker)
        self.bindings = (
            *topology.bindings,
            Binding(names.sessions, self.inbox.name, "{call}"),
            Binding(names.requests, self.fast.name, "{call}"),
            Binding(names.workers, self.worker.name),
        )
        self.shared = {names.calls, names.queries, names.dead_letters}
        """The queues that also others than workers use."""

    def all(self) -> Iterator[DocumentChannel]:
        arriving = self._arriving()
        for exchange in self.topology.exchanges:
            if exchange.name == self.names.events:
                yield self._events(exchange, SESSION_EVENTS, "session.{what}.{service_name}", "mcp.session.")
                yield self._events(exchange, WORKER_EVENTS, "worker.{what}", "mcp.worker.")
            else:
                yield self._exchange(exchange, tuple(arriving[_exchange(exchange.name)]))
        for queue in self.queues:
            yield self._queue(queue, tuple(arriving[_queue(queue.name)]))
        replies = (*(f"{kind}{REPLY_SUFFIX}" for kind in REQUESTS), UNKNOWN_REPLY, *INTERIM)
        told = "The queue in the `reply_to` of a request, through the default exchange."
        yield DocumentChannel(REPLIES, told, None, _routed("", "default"), replies)

    def _exchange(self, exchange: Exchange, messages: tuple[str, ...]) -> DocumentChannel:
        names = self.names
        addresses = {names.sessions: "{call}", names.requests: "{call}", names.unowned: "{call}"}
        no_key = {names.workers, names.dead_letters, names.orphans}
        return DocumentChannel(
            name=f"exchange.{self._short(exchange.name)}",
            description=_sentence(exchange.why),
            address=None if exchange.name in no_key else addresses.get(exchange.name, "{routing_key}"),
            binding=_routed(exchange.name, exchange.type, exchange.arguments),
            messages=messages,
            internal=exchange.name in {names.workers, names.unowned, names.orphans},
        )

    def _events(self, exchange: Exchange, name: str, address: str, family: str) -> DocumentChannel:
        told = "Events of sessions." if name == SESSION_EVENTS else "Events of workers."
        kinds = tuple(kind for kind in EVENTS if kind.startswith(family))
        return DocumentChannel(name, told, address, _routed(exchange.name, exchange.type), kinds)

    def _queue(self, queue: Queue, messages: tuple[str, ...]) -> DocumentChannel:
        bound = [{"exchange": one.source, "routing_key": one.routing_key} for one in self._bindings(queue)]
        facts = {
            "name": queue.name,
            "durable": not queue.exclusive,
            "exclusive": queue.exclusive,
            "autoDelete": queue.exclusive,
            **({"x-arguments": queue.arguments} if queue.arguments else {}),
            **({"x-bindings": bound} if bound else {}),
        }
        return DocumentChannel(
            name=f"queue.{self._short(queue.name)}",
            description=_sentence(queue.why),
            address=queue.name,
            binding={"is": "queue", "queue": facts, "bindingVersion": BINDING},
            messages=messages,
            internal=queue.name not in self.shared,
        )

    def _bindings(self, queue: Queue) -> list[Binding]:
        return [one for one in self.bindings if one.queue == queue.name]

    def _short(self, name: str) -> str:
        own = {self.inbox.name: "inbox", self.fast.name: "requests", self.worker.name: "worker"}
        return own.get(name) or name.removeprefix(f"{self.names.prefix}.")

    # What can arrive where.

    def _sent(self) -> dict[str, list[str]]:
        """Return where messages are published first."""
        names = self.names
        reports = (PresenceReport, PresenceRequest, EndedCalls, ClosedSessions)
        workers = [one.type for one in (*reports, SessionsScatter, FiguresScatter)]
        return {
            _exchange(names.calls): [CALL_EVENT, PLATFORM_EVENT],
            _exchange(names.sessions): [*(one.type for one in get_args(Lifecycle)), OwnerCheck.type],
            _exchange(names.requests): [one.type for one in get_args(Use)],
            _exchange(names.cluster): [one.type for one in get_args(ClusterRequest)],
            _exchange(names.dead_letters): [DEAD_LETTER],
            _exchange(names.workers): workers,
            _exchange(names.unowned): [Recipe.type],
            _queue(self.inbox.name): [Recipe.type, Probe.type],
            _queue(self.worker.name): [
                *(one.type for one in ANSWERS),
                PresenceReport.type,  # to the placer, when a load has changed
                f"{CallEnded.type}{REPLY_SUFFIX}",
            ],
            **{_exchange(one.name): [PLATFORM_EVENT] for one in self.topology.exchanges if one.foreign},
        }

    def _ways(self) -> Iterator[tuple[str, str]]:
        """Return the ways of messages between channels: by the broker's routing, or through the placer."""
        for exchange in self.topology.exchanges:
            if (otherwise := exchange.arguments.get("alternate-exchange")) is not None:
                yield _exchange(exchange.name), _exchange(otherwise)
        for queue in self.queues:
            for one in self._bindings(queue):
                yield _exchange(one.source), _queue(queue.name)
            dead = queue.arguments.get("x-dead-letter-exchange")
            if dead is not None and dead != self.names.dead_letters:  # there it is a dead letter
                yield _queue(queue.name), _exchange(dead)
        yield _queue(self.names.unowned), _queue(self.inbox.name)
        yield _queue(self.names.unowned), _exchange(self.names.sessions)

    def _arriving(self) -> dict[str, dict[str, None]]:
        found: dict[str, dict[str, None]] = defaultdict(dict)
        found |= {place: dict.fromkeys(kinds) for place, kinds in self._sent().items()}
        ways = list(self._ways())
        more = True
        while more:
            more = False
            for start, end in ways:
                passed = found[start].keys() - found[end].keys()
                if end == _exchange(self.names.sessions):
                    passed -= {Probe.type}  # of one worker only; the placer lets go of it
                more = more or bool(passed)
                found[end] |= dict.fromkeys(kind for kind in found[start] if kind in passed)
        return found


def _exchange(name: str) -> str:
    return f"exchange {name}"


def _queue(name: str) -> str:
    return f"queue {name}"


def _routed(name: str, kind: str, arguments: Schema | None = None) -> Schema:
    exchange = {"name": name, "type": kind, "durable": True, "autoDelete": False}
    more = {"x-arguments": arguments} if arguments else {}
    return {"is": "routingKey", "exchange": exchange | more, "bindingVersion": BINDING}


def _sentence(why: str) -> str:
    return f"{why[0].upper()}{why[1:]}."
