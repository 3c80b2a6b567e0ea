"""Finds the exchanges and queues of a prefix that are missing on the broker."""

from consumer.broker.declare import exists
from consumer.broker.errors import NotPermitted
from consumer.broker.link import Link
from consumer.broker.topology import Exchange, Names, Queue, cluster_topology
from schemas.errors import NotRouted, NotRoutedReason

MOST_NAMED = 3
"""How many missing exchanges and queues the sentence names. The details name all."""


async def see_that_all_is_declared(link: Link, names: Names) -> None:
    """Check that the topology of a prefix is declared. Parts that this user may not look for are skipped.

    Raises:
        NotRouted: nothing is, or something is missing; the message and the details say what.
        BrokerUnavailable: the connection is lost.
    """
    topology = cluster_topology(names)
    things: tuple[Exchange | Queue, ...] = (*topology.exchanges, *topology.queues)
    missing, found = [], 0
    for one in things:
        match await _is_there(link, one):
            case True:
                found += one.name != names.events  # followers declare it, too
            case False:
                missing.append(f"{'exchange' if isinstance(one, Exchange) else 'queue'} {one.name}")
    if not missing:
        return
    remedy = "start a worker, or run 'mcp-sessions topology apply' if the workers may not declare"
    if found:
        more = len(missing) - MOST_NAMED
        listed = ", ".join(missing[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        raise NotRouted(
            f"the topology of the prefix {names.prefix!r} is incomplete in this vhost; missing: {listed}; {remedy}",
            reason=NotRoutedReason.NOT_DECLARED,
            missing=missing,
        )
    raise NotRouted(
        f"nothing is declared under the prefix {names.prefix!r} in this vhost; check the prefix and the vhost, "
        f"{remedy}",
        reason=NotRoutedReason.NOT_DECLARED,
        missing=missing,
    )


async def _is_there(link: Link, thing: Exchange | Queue) -> bool | None:
    """Return whether it exists; None if this user may not look for it (RabbitMQ 4.3 and later)."""
    try:
        return await exists(link, thing)
    except NotPermitted:
        return None
