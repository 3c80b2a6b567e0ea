"""RabbitMQ's permissions for each role, as data.

RabbitMQ checks names against three regular expressions: what a user may declare or delete (``configure``), publish to
or bind a queue (``write``), consume or bind from (``read``). They cannot distinguish an exchange from a queue of the
same name, or routing keys of the default exchange: a user that may write there may write into any queue of the vhost.
So only workers and operators may, and no exchange that a client writes to has a queue's name. Topic permissions hold at
topic exchanges only, for the routing keys of messages (``write``) and of bindings (``read``). From RabbitMQ 4.3 on they
are refused for an exchange that does not exist yet, so commands and definitions declare the exchanges first.
"""

import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from consumer.broker.topology import Names, cluster_topology

Role = Literal["publisher", "client", "gateway", "worker", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)

NOTHING = "^$"
ANY_KEY = "^.*$"
DEFAULT_EXCHANGE = "amq.default"
"""The name of the default exchange in permissions."""


@dataclass(frozen=True, slots=True)
class TopicPermission:
    """The routing keys that a role may use at one topic exchange."""

    exchange: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class Permissions:
    """What one role may do in a vhost."""

    role: Role
    why: str
    configure: str
    write: str
    read: str
    topics: tuple[TopicPermission, ...]


def permissions(names: Names, *, call_exchanges: Iterable[str] = ()) -> tuple[Permissions, ...]:
    """Return the permissions of every role. ``call_exchanges`` are those in ``worker.call_exchanges``."""
    foreign = tuple(call_exchanges)
    deaf = TopicPermission(names.events, NOTHING, NOTHING)
    mute = TopicPermission(names.calls, NOTHING, NOTHING)
    of_client = _below(names, "replies", "following")
    of_worker = _below(names, "inbox", "requests", "workers")
    return (
        Permissions(
            "publisher",
            "publishes call events",
            configure=NOTHING,
            write=_any(names.calls, *foreign),
            read=NOTHING,
            topics=(TopicPermission(names.calls, ANY_KEY, NOTHING), deaf),
        ),
        Permissions(
            "client",
            "sends requests to sessions and tools, and follows events",
            configure=_any(below=(*of_client, _SERVER_NAMED)),
            write=_any(names.sessions, names.requests, names.cluster, below=(*of_client, _SERVER_NAMED)),
            read=_any(names.events, below=(*of_client, _SERVER_NAMED)),
            topics=(mute, TopicPermission(names.events, NOTHING, ANY_KEY)),
        ),
        Permissions(
            "gateway",
            "sends requests for HTTP clients, and publishes the call events that it receives",
            configure=_any(below=(*of_client, _SERVER_NAMED)),
            write=_any(
                names.calls, names.sessions, names.requests, names.cluster, *foreign, below=(*of_client, _SERVER_NAMED)
            ),
            read=_any(names.events, below=(*of_client, _SERVER_NAMED)),
            topics=(
                TopicPermission(names.calls, ANY_KEY, NOTHING),
                TopicPermission(names.events, NOTHING, ANY_KEY),
            ),
        ),
        Permissions(
            "worker",
            "owns calls; uses the exchanges and queues that an operator has declared",
            configure=_any(below=of_worker),
            write=_any(
                DEFAULT_EXCHANGE,
                names.sessions,
                names.requests,
                names.unowned,
                names.orphans,
                names.workers,
                names.events,
                names.dead_letters,
                below=of_worker,
            ),
            read=_any(
                names.calls,
                names.sessions,
                names.requests,
                names.unowned,
                names.queries,
                names.workers,
                below=of_worker,
            ),
            topics=(mute, TopicPermission(names.events, r"^(session|worker)\..+$", NOTHING)),
        ),
        Permissions(
            "operator",
            "declares the topology, reads everything, replays and drops dead letters",
            configure=_any(*foreign, below=(re.escape(f"{names.prefix}."),)),
            write=_any(DEFAULT_EXCHANGE, *foreign, below=(re.escape(f"{names.prefix}."),)),
            read=_any(*foreign, below=(re.escape(f"{names.prefix}."),)),
            topics=(TopicPermission(names.calls, ANY_KEY, ANY_KEY), TopicPermission(names.events, ANY_KEY, ANY_KEY)),
        ),
    )


_SERVER_NAMED = r"amq\.gen"
"""A pattern for exclusive queues that the broker names. Clients in other languages use them for replies."""


def _below(names: Names, *words: str) -> tuple[str, ...]:
    return tuple(re.escape(f"{names.prefix}.{word}.") for word in words)


def _any(*exact: str, below: Iterable[str] = ()) -> str:
    """Return a pattern for these names, and for names that begin with one of ``below`` (regular expressions)."""
    alternatives = [*map(re.escape, exact), *(f"{start}.+" for start in below)]
    return f"^({'|'.join(alternatives)})$"


def commands(given: Iterable[Permissions], *, vhost: str, user: str) -> list[str]:
    """Return lines for a shell. ``{role}`` in ``user`` stands for the role.

    Each password comes from a variable, through stdin. So it is visible in no list of processes, and ``add_user`` does
    not read the next pasted line as the password.
    """
    listed = [(_name(user, one.role), one) for one in given]
    lines = [f"{PASSWORDS} {' '.join(_variable(name) for name, _ in listed)}"]
    for name, one in listed:
        lines.append(f"printf '%s\\n' \"${{{_variable(name)}:?}}\" | {_line('add_user', name)}")
        lines.append(_alone("set_permissions", "-p", vhost, name, one.configure, one.write, one.read))
    lines.append(BETWEEN)
    lines += [
        _alone("set_topic_permissions", "-p", vhost, name, topic.exchange, topic.write, topic.read)
        for name, one in listed
        for topic in one.topics
    ]
    return lines


PASSWORDS = (
    "# the passwords come from these variables: set them first, without exporting them, for example by read -rs:"
)

BETWEEN = "# these need the exchanges: run 'mcp-sessions topology apply' as operator first"
"""A comment line between the commands."""


def _name(user: str, role: Role) -> str:
    return user.replace("{role}", role)


def _variable(name: str) -> str:
    return re.sub(r"\W", "_", f"{name}_password", flags=re.ASCII).upper()


def _line(*words: str) -> str:
    return shlex.join(("rabbitmqctl", *words))


def _alone(*words: str) -> str:
    """Return a line whose command does not read stdin.

    Otherwise it would swallow the following lines of a piped script.
    """
    return f"{_line(*words)} </dev/null"


def definitions(names: Names, given: Iterable[Permissions], *, vhost: str, user: str) -> dict[str, Any]:
    """Return the same permissions as definitions for ``rabbitmqctl import_definitions``. The users must exist."""
    listed = [(_name(user, one.role), one) for one in given]
    limited = {topic.exchange for _, one in listed for topic in one.topics}
    return {
        "permissions": [
            {"user": name, "vhost": vhost, "configure": one.configure, "write": one.write, "read": one.read}
            for name, one in listed
        ],
        "exchanges": [
            {"name": one.name, "vhost": vhost, "type": one.type, **_OF_ALL_EXCHANGES, "arguments": one.arguments}
            for one in cluster_topology(names).exchanges
            if one.name in limited
        ],
        "topic_permissions": [
            {"user": name, "vhost": vhost, **asdict(topic)} for name, one in listed for topic in one.topics
        ],
    }


_OF_ALL_EXCHANGES = {"durable": True, "auto_delete": False, "internal": False}
"""Attributes that every exchange needs here, because RabbitMQ has no defaults for them in definitions."""
