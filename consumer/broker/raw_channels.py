"""Opens and closes channels as both libraries know them."""

import contextlib

import aiormq
from aio_pika.abc import AbstractChannel

from consumer.broker.channel import RPC_TIMEOUT
from consumer.broker.errors import BrokerUnavailable
from consumer.broker.given_up import library_gives_up
from consumer.broker.pending import Pending
from consumer.observability.reasons import reason_of

RawChannel = tuple[AbstractChannel, aiormq.Channel]
"""A channel as both libraries know it. The first must be referenced, because it closes when it is collected."""


async def opened(pika: AbstractChannel, pending: Pending) -> aiormq.Channel:
    """Open a channel of aio_pika, and return the one of aiormq below it.

    Raises:
        BrokerUnavailable: the broker did not open it.
    """
    try:
        async with pending.bounded(RPC_TIMEOUT):  # a connection that is lost by now may answer nothing
            with library_gives_up():
                await pika.initialize(timeout=RPC_TIMEOUT)
                raw = await pika.get_underlay_channel()
    except Exception as error:  # the connection is closed, or closes meanwhile: aiormq has many words for it
        raise BrokerUnavailable(f"the broker did not open a channel: {reason_of(error)}") from error
    assert isinstance(raw, aiormq.Channel), "aio_pika speaks through aiormq"
    return raw


async def closed(pika: AbstractChannel) -> None:
    """Close a channel, which may be closed already."""
    with contextlib.suppress(Exception):  # the broker has closed it, or the connection is lost
        await pika.close()
