"""Declares the topology, and compares it with what the broker has."""

from dataclasses import dataclass
from typing import Literal

import structlog
from aiormq.exceptions import ChannelClosed, ChannelNotFoundEntity, ChannelPreconditionFailed

from consumer.broker.channel import Channel
from consumer.broker.errors import BrokerUnavailable, NotPermitted
from consumer.broker.link import Link
from consumer.broker.topology import Exchange, Names, Queue, Topology

log = structlog.get_logger(__name__)

State = Literal["ok", "missing", "differs", "refused"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The difference between what the broker has under a name and what we need."""

    kind: Literal["exchange", "queue"]
    name: str
    state: State
    detail: str = ""


async def apply(channel: Channel, topology: Topology, *, link: Link) -> None:
    """Declare the whole topology. Idempotent. The broker's error tells what differs from what is there already.

    A platform's own exchange is used as it is. If it is missing, it is declared as the platform would declare it.

    Raises:
        BrokerUnavailable: something differs, or this user may not declare it.
    """
    for exchange in topology.exchanges:
        if not (exchange.foreign and await exists(link, exchange)):
            await channel.declare_exchange(exchange)
    for queue in topology.queues:
        if queue.may_differ:
            await _declare_or_take(link, queue)
        else:
            await channel.declare_queue(queue)
    for binding in topology.bindings:
        await channel.bind(binding)


async def _declare_or_take(link: Link, queue: Queue) -> None:
    try:
        async with link.scratch() as channel:  # which a difference closes
            await channel.declare_queue(queue)
    except BrokerUnavailable as error:
        if not isinstance(error.__cause__, ChannelPreconditionFailed):
            raise
        log.warning(
            "topology.differs",
            queue=queue.name,
            detail=str(error.__cause__),
            hint=f"the worker uses it unchanged. To change it, empty {queue.name}, delete it and apply the topology",
        )


async def ensure(link: Link, topology: Topology) -> None:
    """Declare everything, or check that it exists if this user may not declare. Bindings are not checked then.

    Raises:
        BrokerUnavailable: something differs.
        NotPermitted: something is missing and may not be declared.
    """
    try:
        async with link.scratch() as channel:
            await apply(channel, topology, link=link)
    except BrokerUnavailable as error:
        if not isinstance(error, NotPermitted):
            raise
        needed: tuple[Exchange | Queue, ...] = (*topology.exchanges, *topology.queues)
        missing = dict.fromkeys([one.name for one in needed if not await may_exist(link, one)])
        if missing:
            raise NotPermitted(
                f"this user may not declare {', '.join(missing)}: it lacks the permission configure for them; "
                "run 'mcp-sessions topology apply' as operator"
            ) from error


async def may_exist(link: Link, thing: Exchange | Queue) -> bool:
    """Return whether it exists. From RabbitMQ 4.3 on, a user can look only for what it may read or write."""
    try:
        return await exists(link, thing)
    except NotPermitted:
        return True


async def exists(link: Link, thing: Exchange | Queue) -> bool:
    """Return whether the broker has an exchange, or a queue, of that name."""
    try:
        async with link.asking() as channel:
            await _declare(channel, thing, passive=True)
    except BrokerUnavailable as error:
        if isinstance(error.__cause__, ChannelNotFoundEntity):
            return False
        raise
    return True


async def cluster_exchange(link: Link, names: Names) -> str:
    """Return the exchange for requests to the cluster; with older workers this is the default exchange.

    It is also the default exchange if this user may not use the other one, which RabbitMQ reports from 4.3 on.
    """
    try:
        return names.cluster if await exists(link, Exchange(names.cluster, "fanout", "")) else ""
    except NotPermitted:
        return ""


async def consumers_of(link: Link, queue: str) -> int:
    """Return the number of consumers of a queue, 0 if it does not exist. This sends no message.

    Raises:
        NotPermitted: this user may not ask for it, from RabbitMQ 4.3 on.
        BrokerUnavailable: the broker does not answer.
    """
    try:
        async with link.asking() as channel:
            return await channel.consumers_of(queue)
    except BrokerUnavailable as error:
        if isinstance(error.__cause__, ChannelNotFoundEntity):
            return 0
        raise


async def _declare(channel: Channel, thing: Exchange | Queue, *, passive: bool) -> None:
    if isinstance(thing, Exchange):
        await channel.declare_exchange(thing, passive=passive)
    else:
        await channel.declare_queue(thing, passive=passive)


async def _state(link: Link, thing: Exchange | Queue) -> tuple[State, str]:
    # Passive first, because only that never creates; then for real, because only that compares the arguments.
    foreign = isinstance(thing, Exchange) and thing.foreign
    for passive in (True,) if foreign else (True, False):
        try:
            async with link.scratch() as channel:
                await _declare(channel, thing, passive=passive)
        except BrokerUnavailable as error:
            match error.__cause__:
                case ChannelNotFoundEntity():
                    return "missing", "run 'mcp-sessions topology apply'"
                case ChannelPreconditionFailed() as difference:
                    return "differs", f"{difference}; delete it (when it is empty), then apply"
                case ChannelClosed() as refusal:
                    return "refused", str(refusal)
                case _:
                    raise
    return "ok", ""


async def verify(link: Link, topology: Topology) -> list[Finding]:
    """Compare what the broker has with the topology; changes nothing. Bindings cannot be read over AMQP."""
    exchanges = [Finding("exchange", one.name, *await _state(link, one)) for one in topology.exchanges]
    return exchanges + [Finding("queue", one.name, *await _state(link, one)) for one in topology.queues]
