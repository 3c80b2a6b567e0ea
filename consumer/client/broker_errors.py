"""Translates errors of the broker room into the client's errors."""

import contextlib
from collections.abc import Iterator

from consumer.broker.errors import (
    BrokerError,
    BrokerForbids,
    BrokerRefused,
    BrokerUnreachable,
    BrokerUntrusted,
    InvalidBrokerUrl,
    MessageTooLarge,
    NoExchange,
    NotPermitted,
    PublishFailed,
    PublishUnknown,
    ReplyLost,
    Unroutable,
    Unsendable,
)
from schemas.errors import (
    AccessRefused,
    CannotConnect,
    ClientError,
    Disconnected,
    Forbidden,
    InvalidUrl,
    NotConfirmed,
    NotRouted,
    NotRoutedReason,
    RequestTooLarge,
)


def translated(error: BrokerError) -> ClientError:
    """Translate an error of the broker room to the client's error."""
    match error:
        case BrokerRefused():
            return AccessRefused(str(error))
        case InvalidBrokerUrl():
            return InvalidUrl(str(error))
        case BrokerForbids() | BrokerUntrusted():
            return CannotConnect(str(error), retryable=False)
        case BrokerUnreachable():
            return CannotConnect(str(error))
        case NotPermitted():
            return Forbidden(str(error))
        case MessageTooLarge():
            return RequestTooLarge(str(error))
        case NoExchange() | Unsendable():
            return NotRouted(str(error), reason=NotRoutedReason.NO_EXCHANGE)
        case Unroutable():
            return NotRouted(str(error), reason=NotRoutedReason.NO_QUEUE)
        case PublishFailed():
            return NotRouted(str(error), reason=NotRoutedReason.REFUSED)
        case PublishUnknown():
            return NotConfirmed(str(error))
        case ReplyLost():
            return Disconnected(str(error))
        case _:
            return Disconnected(str(error), executed=False)


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """Translate errors of the broker room that are raised within this block."""
    try:
        yield
    except BrokerError as error:
        raise translated(error) from error
