"""Users of a broker for each role, with exactly its rights, and what such a user may try."""

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from consumer.broker.errors import BrokerError
from consumer.broker.link import Link
from consumer.broker.message import Message
from consumer.broker.permissions import ROLES, definitions, permissions
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Binding, Names, Queue
from infra.broker import PrivateBroker
from infra.rabbitmq_find import version_of

NAMES = Names("acme.mcp")
FORMER = "former"
"""A client with the rights of before: it may also write into any queue, by the default exchange."""

USERS = (*ROLES, FORMER)
FOLLOWING = f"{NAMES.prefix}.following.{{mine}}"
"""A queue as a client may have it: ``{mine}`` stands for its connection."""

HAVE_RIGHTS: set[Path] = set()
"""The folders of the nodes whose users have been given their rights."""

Act = Callable[[Link, Publisher], Awaitable[object]]


def rights() -> dict[str, Any]:
    """Users and permissions, as RabbitMQ imports them."""
    made = definitions(NAMES, permissions(NAMES), vhost="/", user="{role}")
    client = next(one for one in made["permissions"] if one["user"] == "client")
    made["permissions"].append(client | {"user": FORMER, "write": client["write"].replace("^(", "^(amq\\.default|", 1)})
    users = [{"name": user, "password": user, "tags": ""} for user in USERS]
    return {"users": users, **made}


def give_rights(node: PrivateBroker) -> None:
    """Give the users of the roles, whose names are their passwords, their rights if they lack them.

    From RabbitMQ 4.3 on, those on topics go with the exchange.
    """
    if node.home not in HAVE_RIGHTS or (version_of(node.server) or (4, 3)) >= (4, 3):
        define(node, rights())
        HAVE_RIGHTS.add(node.home)


def define(node: PrivateBroker, definitions: Mapping[str, Any]) -> None:
    """Have a node import definitions."""
    path = node.home / "definitions.json"
    path.write_text(json.dumps(definitions))
    path.chmod(0o644)  # the node may run as another user
    node.rabbitmqctl("import_definitions", str(path))


def url_of(node: PrivateBroker, user: str) -> str:
    return node.url.replace("guest:guest", f"{user}:{user}")


async def may(url: str, act: Act) -> bool:
    """Whether RabbitMQ lets this user; on a connection of its own, because a refusal may cost it."""
    link, publisher = Link(url, "test"), Publisher()
    await link.open()
    try:
        publisher.attach(await link.publishing())
        await act(link, publisher)
    except BrokerError as error:
        told = repr(error.__cause__)
        assert any(word in told for word in ("ACCESS_REFUSED", "RESOURCE_LOCKED", "AccessRefused", "Locked")), told
        return False
    else:
        return True
    finally:
        await link.close()


def publish(exchange: str, key: str = "") -> Act:
    return lambda _, publisher: publisher.publish(Message(b"{}"), exchange, key, mandatory=False)


def consume(queue: str) -> Act:
    async def act(link: Link, _: Publisher) -> None:
        await (await link.channel()).consume(queue, lambda _: None)

    return act


def bind(queue: str, exchange: str, key: str = "#") -> Act:
    """Bind a queue; one with ``{mine}`` in its name is declared before."""

    async def act(link: Link, _: Publisher) -> None:
        channel = await link.channel()
        name = queue.replace("{mine}", link.token)
        if name != queue:
            await channel.declare_queue(Queue(name, "", exclusive=True))
        await channel.bind(Binding(exchange, name, key))

    return act


def declare(queue: str) -> Act:
    async def act(link: Link, _: Publisher) -> None:
        await (await link.channel()).declare_queue(Queue(queue, "", exclusive=True))

    return act


def delete(queue: str) -> Act:
    async def act(link: Link, _: Publisher) -> None:
        await (await link.channel()).delete_queue(queue)

    return act
