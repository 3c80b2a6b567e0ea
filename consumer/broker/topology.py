"""The topology as data: every exchange, queue and binding, and why it is as it is.

Declaring, verifying and printing all read this module and nothing else. ``cluster_topology`` is what all workers share;
``inbox``, ``requests_queue`` and ``worker_queue`` belong to one worker.

Every quorum queue sets four arguments, because their defaults differ between versions or lose messages: a positive
delivery limit (none before RabbitMQ 4.0, where 3.10 also requeues to the back), a dead-letter exchange, at-least-once
dead-lettering (the default is at most once; needs ``reject-publish``), and how long 4.3 and later wait for a consumer
on a lost node (60 s otherwise).

A dead letter whose queue is not there yet is tried again after ``dead_letter_worker_publisher_confirm_timeout``, which
is three minutes; it happens when a broker starts, for its queues come up one after the other (3.10.8 to 4.3.6).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.ids import WorkerId

ExchangeType = Literal["direct", "topic", "fanout", "headers"]
Arguments = dict[str, Any]

DELIVERY_LIMIT = 20
NO_LIMIT = 2**31 - 1
"""No delivery limit, for the dead-letter queue: looking at a message counts as a delivery.

A message over the limit would be dead-lettered into the same queue. RabbitMQ takes this for a cycle, and neither
delivers nor counts the message any more.
"""

MAX_DEAD_LETTER_BYTES = 256 << 20
"""The most bytes in the dead-letter queue, unless the configuration says otherwise."""

MAX_DEAD_LETTERS = 100_000
"""The most messages in the dead-letter queue. Small messages cost more than their bytes."""

INBOX_TTL_MS = 1_000
"""How long (ms) a message waits in an inbox without a consumer before it becomes an orphan."""

INBOX_EXPIRES_MS = 1_800_000
"""After how long (ms) an inbox without a consumer is deleted: long after its last message has become an orphan."""

QUERY_TTL_MS = 30_000
"""After how long (ms) a request to the cluster is dropped, because its requester no longer waits."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange. A ``foreign`` one belongs to a platform, and is declared only if it is missing."""

    name: str
    type: ExchangeType
    why: str
    arguments: Arguments = field(default_factory=dict)
    foreign: bool = False
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue, or an exclusive one that goes with its connection.

    If it ``may_differ`` and exists with other arguments, it is used unchanged, with a warning.
    """

    name: str
    why: str
    arguments: Arguments = field(default_factory=dict)
    exclusive: bool = False
    may_differ: bool = False

    @property
    def kind(self) -> str:
        """The kind of queue: quorum, classic or exclusive."""
        return "exclusive" if self.exclusive else str(self.arguments.get("x-queue-type", "classic"))


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding: ``queue`` gets the messages that ``source`` routes under ``routing_key``."""

    source: str
    queue: str
    routing_key: str = ""
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallExchange:
    """An exchange of a telephony platform that carries call events, as in ``worker.call_exchanges``."""

    exchange: str
    type: ExchangeType = "topic"
    routing_key: str = "#"
    arguments: Arguments = field(default_factory=dict)
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Topology:
    """The things to declare, in their order."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """The names on the wire, under one prefix."""

    prefix: str = "mcp"

    def _name(self, *parts: str) -> str:
        return ".".join((self.prefix, *parts))

    @property
    def calls(self) -> str:
        """Exchange and queue of raw call events."""
        return self._name("calls")

    @property
    def sessions(self) -> str:
        """Exchange for messages that open, change or end a call. Its queues are durable."""
        return self._name("sessions")

    @property
    def requests(self) -> str:
        """Exchange for tool calls and reads. Its queues end with their connection."""
        return self._name("requests")

    @property
    def unowned(self) -> str:
        """The exchange and the queue of messages to calls without an owner."""
        return self._name("unowned")

    @property
    def orphans(self) -> str:
        """Exchange and queue for orphans, which an inbox has given up."""
        return self._name("orphans")

    @property
    def cluster(self) -> str:
        """Exchange for requests to the cluster. No queue has its name, so a publisher here can bind nothing."""
        return self._name("cluster")

    @property
    def queries(self) -> str:
        """Queue for requests that any worker answers."""
        return self._name("queries")

    @property
    def workers(self) -> str:
        """Exchange that reaches every worker."""
        return self._name("workers")

    @property
    def events(self) -> str:
        """Exchange for events about sessions and workers."""
        return self._name("events")

    @property
    def dead_letters(self) -> str:
        """Exchange and queue for dead letters."""
        return self._name("dead")

    def inbox(self, worker_id: WorkerId) -> str:
        """A worker's inbox."""
        return self._name("inbox", worker_id)

    def worker_of_inbox(self, queue: str) -> WorkerId | None:
        """The worker whose inbox ``queue`` is, if it is one."""
        start = self._name("inbox", "")
        return WorkerId(queue.removeprefix(start)) if queue.startswith(start) else None

    def is_workers(self, queue: str) -> bool:
        """Return whether workers consume from a queue of this name."""
        shared = {self.calls, self.unowned, self.orphans, self.queries, self.dead_letters}
        own = tuple(self._name(word, "") for word in ("inbox", "requests", "workers"))
        return queue in shared or queue.startswith(own)

    def requests_of(self, worker_id: WorkerId, connection: str) -> str:
        """A worker's requests queue on one of its connections."""
        return self._name("requests", worker_id, connection)

    def worker(self, worker_id: WorkerId, connection: str) -> str:
        """Queue for a worker's messages from other workers, and for replies to its requests."""
        return self._name("workers", worker_id, connection)


def _quorum(dead_letter_exchange: str | None, **more: Any) -> Arguments:
    arguments: Arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-overflow": "reject-publish",
        "x-consumer-disconnected-timeout": 10_000,
    }
    if dead_letter_exchange is not None:
        arguments["x-dead-letter-exchange"] = dead_letter_exchange
        arguments["x-dead-letter-strategy"] = "at-least-once"
    return arguments | more


def dead_letter_topology(names: Names, max_dead_letter_bytes: int = MAX_DEAD_LETTER_BYTES) -> Topology:
    """Return the dead-letter queue. It drops its oldest messages beyond ``max_dead_letter_bytes``.

    The queue dead-letters into itself, so a message that a foreign consumer rejects comes back. RabbitMQ drops a
    message that exceeds the limit, because it detects a cycle. Nothing depends on the limit, so an existing queue with
    another one is used unchanged.
    """
    bounds = {
        "x-delivery-limit": NO_LIMIT,
        "x-overflow": "drop-head",
        "x-dead-letter-strategy": "at-most-once",  # the other one needs reject-publish
        "x-max-length-bytes": max_dead_letter_bytes,
        "x-max-length": MAX_DEAD_LETTERS,
    }
    return Topology(
        exchanges=(
            Exchange(names.dead_letters, "fanout", "messages that cannot be handled, with the reason in headers"),
        ),
        queues=(
            Queue(names.dead_letters, "the dead-letter queue", _quorum(names.dead_letters, **bounds), may_differ=True),
        ),
        bindings=(Binding(names.dead_letters, names.dead_letters),),
    )


def cluster_topology(
    names: Names,
    *,
    grace: float = 5.0,
    max_dead_letter_bytes: int = MAX_DEAD_LETTER_BYTES,
    call_exchanges: Iterable[CallExchange] = (),
) -> Topology:
    """Return the topology that all workers share. An orphan waits ``grace`` seconds for its worker."""
    extra = tuple(call_exchanges)
    unowned = {"alternate-exchange": names.unowned}
    kept = dead_letter_topology(names, max_dead_letter_bytes)
    return Topology(
        exchanges=(
            *kept.exchanges,
            Exchange(names.unowned, "fanout", "messages for calls that nobody owns"),
            Exchange(names.orphans, "fanout", "messages that a worker held or did not consume in time"),
            Exchange(names.calls, "topic", "raw call events of telephony platforms"),
            Exchange(names.sessions, "direct", "messages that open, change or end a call", unowned),
            Exchange(names.requests, "direct", "tool calls and reads", unowned),
            Exchange(names.cluster, "fanout", "requests that any worker answers"),
            Exchange(names.workers, "fanout", "presence reports and requests to all workers"),
            Exchange(
                names.events, "topic", "events of sessions and workers: session.<what>.<service_name>, worker.<what>"
            ),
            *(
                Exchange(
                    one.exchange, one.type, "a telephony platform's own exchange", foreign=True, durable=one.durable
                )
                for one in extra
            ),
        ),
        queues=(
            *kept.queues,
            Queue(names.calls, "raw call events; all workers consume it", _quorum(names.dead_letters)),
            Queue(
                names.unowned,
                "messages for the placer, the single active consumer, which RabbitMQ elects and replaces",
                _quorum(names.dead_letters, **{"x-single-active-consumer": True}),
            ),
            Queue(
                names.orphans,
                "no consumer: messages wait here while a worker that lost its connection may come back",
                _quorum(names.unowned, **{"x-message-ttl": round(grace * 1000)}),
            ),
            # No dead-lettering: a question that nobody waits for is no poison.
            Queue(names.queries, "requests that any worker answers", _quorum(None, **{"x-message-ttl": QUERY_TTL_MS})),
        ),
        bindings=(
            *kept.bindings,
            Binding(names.calls, names.calls, "#"),
            Binding(names.unowned, names.unowned),
            Binding(names.orphans, names.orphans),
            Binding(names.cluster, names.queries),
            *(Binding(one.exchange, names.calls, one.routing_key, one.arguments) for one in extra),
        ),
    )


def inbox(names: Names, worker_id: WorkerId) -> Queue:
    """A worker's inbox; bound to the sessions exchange once for each call that it owns."""
    return Queue(
        names.inbox(worker_id),
        "messages that start, change or end a worker's calls",
        _quorum(names.orphans, **{"x-message-ttl": INBOX_TTL_MS, "x-expires": INBOX_EXPIRES_MS}),
    )


def requests_queue(names: Names, worker_id: WorkerId, connection: str) -> Queue:
    """A worker's requests queue; bound once for each call that it owns.

    It is a classic queue, because a quorum queue would cost 0.8 ms for each tool call. Each connection uses a new name,
    because from 4.2 on an exclusive queue stays locked while its cluster node is down.
    """
    return Queue(names.requests_of(worker_id, connection), "tool calls and reads for a worker's calls", exclusive=True)


def worker_queue(names: Names, worker_id: WorkerId, connection: str) -> Queue:
    """A worker's queue for messages from other workers; bound to the fanout exchange of all workers."""
    return Queue(
        names.worker(worker_id, connection), "presence reports, requests to all workers, replies", exclusive=True
    )
