"""The name that a worker signs its messages with: the RabbitMQ user of its connection.

RabbitMQ compares the property ``user_id`` of a message with the user of the connection that publishes it, and closes
the channel when they differ. So a message with a worker's user was published by a worker, no matter through which
exchanges it came.
"""

import re
import secrets
from contextlib import suppress
from typing import Final

import aiormq
import structlog
from aio_pika.abc import AbstractConnection
from aiormq import spec
from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed

from consumer.broker.errors import BrokerUnavailable
from consumer.broker.refused_operations import not_permitted
from consumer.observability.reasons import reason_of

log = structlog.get_logger(__name__)

TIMEOUT: Final = 10.0

_AUTHENTICATED: Final = re.compile(r"authenticated user was '(?P<user>.+)'")
"""The words of RabbitMQ (3.10 to 4.3) when a ``user_id`` is not the connection's user."""


async def verified_user(connection: AbstractConnection, claimed: str) -> str:
    """Return the user of this connection: ``claimed``, or the name that the broker gives instead.

    If a certificate or a token replaces the password, the URL does not contain the broker's user. Each attempt has its
    own channel, because the broker closes it for a wrong name.

    Raises:
        NotPermitted: the user may not publish to the default exchange.
        BrokerUnavailable: the connection is lost, or the broker does not name its user.
    """
    refusal = await _refusal(connection, claimed)
    if refusal is None:
        return claimed
    found = _AUTHENTICATED.search(refusal)
    if found is not None and await _refusal(connection, found["user"]) is None:
        return found["user"]
    raise BrokerUnavailable(f"it does not name the user of this connection, so messages cannot be signed: {refusal}")


async def _refusal(connection: AbstractConnection, user: str) -> str | None:
    """Return why messages may not be signed with this name. The test message goes to no queue."""
    pika = connection.channel(publisher_confirms=True)
    try:
        await pika.initialize(timeout=TIMEOUT)
        raw = await pika.get_underlay_channel()
        assert isinstance(raw, aiormq.Channel), "aio_pika speaks through aiormq"
        await raw.basic_publish(
            b"",
            exchange="",
            routing_key=f"nobody.{secrets.token_hex(8)}",
            properties=spec.Basic.Properties(delivery_mode=1, user_id=user),
            timeout=TIMEOUT,
        )
    except ChannelPreconditionFailed as error:
        return str(error)
    except ChannelAccessRefused as error:
        raise not_permitted(error, "publish") from error
    except Exception as error:
        raise BrokerUnavailable(f"the broker did not say whether this is {user!r}: {reason_of(error)}") from error
    else:
        return None
    finally:
        with suppress(Exception):
            await pika.close()
