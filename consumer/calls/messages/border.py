"""The border refuses types and drops headers that only workers may send, and checks the headers of workers.

Workers exchange information about calls in message types and ``x-mcp-*`` headers. From anybody else those types are
refused and those headers are dropped, and so is ``x-death``, which RabbitMQ up to 3.13 takes over from a publisher.
Behind the border, every ``x-mcp-*`` header is as ``schemas.headers`` says, and its times are plausible. Pure.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, Final, get_args

from consumer.broker.message import CALL_HEADER, Delivery, Headers, own_headers
from consumer.broker.topology import Names
from schemas import headers
from schemas.errors import InvalidMessage
from schemas.ids import MAX_ID_BYTES
from schemas.internal import INTERNAL
from schemas.requests import MADE_OF_EVENTS, SessionCreate, Use

OURS: Final = "x-mcp-"
"""The prefix of all headers that workers write."""

INTERNAL_TYPES: Final = frozenset(one.type for one in INTERNAL)
WORKERS_WORDS: Final = INTERNAL_TYPES | MADE_OF_EVENTS

WITH_DEADLINE: Final = frozenset({SessionCreate.type, *(use.type for use in get_args(Use))})
"""The messages of clients whose ``x-mcp-deadline`` is read. It is the only ``x-mcp-*`` header that a client may set."""

FURTHEST: Final = 604_800.0
"""How far (s) from now a time in a header may be: a week, like the longest duration of a request."""

MOST_HOPS: Final = 1000
"""The highest value of a counter in a header."""

_HEADER_BYTES: Final = MAX_ID_BYTES + 64
"""The most bytes of a string in an ``x-mcp-*`` header: the id of a call or a worker, and a number."""


def admitted(delivery: Delivery, names: Names) -> Delivery:
    """Return the delivery as handlers may see it. ``by_worker`` says whether a worker published it.

    Raises:
        InvalidMessage: its publisher may not send this type, or may not use this exchange.
    """
    if not delivery.by_worker:
        _check_origin(delivery, names)
    message = delivery.message
    kept = message.headers
    if not kept:
        return delivery
    if not delivery.by_worker:
        waits = delivery.queue != names.calls and delivery.type in WITH_DEADLINE
        kept = {name: value for name, value in kept.items() if _may_bring(name, waits=waits)}
    if delivery.exchange != names.unowned:  # only there does the broker bring dead letters
        kept = own_headers(kept)
    checked = _checked(kept)
    if checked == message.headers:
        return delivery
    return dataclasses.replace(delivery, message=dataclasses.replace(message, headers=checked))


def is_answerable(delivery: Delivery, names: Names) -> bool:
    """Return whether a reply may go to the reply address.

    Workers' queues are refused, as workers trust their messages.
    """
    reply_to = delivery.message.reply_to
    return reply_to is None or not names.is_workers(reply_to)


def _check_origin(delivery: Delivery, names: Names) -> None:
    kind = delivery.type
    if not is_answerable(delivery, names):
        raise InvalidMessage(
            f"reply_to: {delivery.message.reply_to!r} is a queue of the workers; use your own queue, "
            "or amq.rabbitmq.reply-to",
            reply_to=delivery.message.reply_to,
        )
    if delivery.queue == names.calls:
        return
    if kind in MADE_OF_EVENTS:
        raise InvalidMessage(
            f"only workers publish {kind}: publish the call event to the exchange {names.calls!r} instead",
            type=kind,
        )
    if kind in INTERNAL_TYPES:
        raise InvalidMessage(f"only workers may send {kind}", type=kind)
    if not delivery.exchange and delivery.queue != names.queries:
        raise InvalidMessage(
            f"{kind}: was published directly to the queue {delivery.queue!r}: publish it to {names.sessions!r} or "
            f"{names.requests!r} with the call's routing key",
            type=kind,
        )


def _may_bring(name: str, *, waits: bool) -> bool:
    return not name.startswith(OURS) or (waits and name == headers.DEADLINE)


def _checked(given: Headers) -> Headers:
    """The headers, with the ``x-mcp-*`` headers checked."""
    if not any(name.startswith(OURS) for name in given):
        return given
    return {name: _READ.get(name, _as_it_is)(name, value) for name, value in given.items()}


def _as_it_is(_: str, value: Any) -> Any:
    return value


def _wrong(name: str, value: object, what: str) -> InvalidMessage:
    return InvalidMessage(f"header {name}: must be {what}, is {str(value)[:80]!r}", header=name)


def _moment(name: str, value: Any) -> str:
    """Milliseconds since the epoch, at most ``FURTHEST`` away."""
    try:
        moment = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, ArithmeticError):
        moment = math.nan
    if math.isnan(moment):
        raise _wrong(name, value, "milliseconds since the epoch")
    now = time.time()
    if abs(moment - now) < FURTHEST:
        raise _wrong(name, value, "in milliseconds since the epoch, not in seconds")
    return str(round(min(max(moment, (now - FURTHEST) * 1000), (now + FURTHEST) * 1000)))


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _wrong(name, value, "a whole number of at least 0")
    return min(value, MOST_HOPS)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value.encode("utf-8", "surrogatepass")) <= _HEADER_BYTES:
        raise _wrong(name, value, f"a string of 1 to {_HEADER_BYTES} bytes")
    return value


def _placement(name: str, value: Any) -> str:
    placer, _, number = str(value).rpartition("/")
    if not placer or not (number.isascii() and number.isdigit()) or len(number) > 18:
        raise _wrong(name, value, "<placer>/<number>")
    return _text(name, value)


def _disowned(name: str, value: Any) -> str:
    return "" if value == "" else _placement(name, value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "true or false")
    return value


def _digits(name: str, value: Any) -> str:
    if not isinstance(value, str) or not set(value) <= {"0", "1"}:
        raise _wrong(name, value, "a string of the digits 0 and 1")
    return value


_READ: Final[dict[str, Callable[[str, Any], Any]]] = {
    CALL_HEADER: _text,
    headers.PLACEMENT: _placement,
    headers.BELIEVED: _placement,
    headers.DISOWNED: _disowned,
    headers.RETURNED: _text,
    headers.RETURNS: _count,
    headers.REFUSED: _text,
    headers.RESENT: _flag,
    headers.DEATHS: _count,
    headers.LATE: _flag,
    headers.ORPHAN_OF: _text,
    headers.LOST: _flag,
    headers.STARTED: _moment,
    headers.COMMANDED: _moment,
    headers.RESTORED: _digits,
    headers.ADMISSION: _moment,
    headers.DEADLINE: _moment,
}
"""The function that reads each header."""
