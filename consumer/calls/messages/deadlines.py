"""Deadlines of requests: when their callers stop waiting.

The shorter of ``expiration`` (ms, AMQP) and ``timeout`` (s, body) counts. If a request has neither, the service's
``call_timeout`` does. A forwarded message carries the deadline as a time in a header.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Final

from consumer.broker.message import Delivery
from schemas import headers
from schemas.errors import DeadlineExceeded, OutcomeUnknown, SessionsError
from schemas.requests import CallRequest, ToolsCall

BEAT: Final = 0.25
STALLED: Final = 1.0
"""A pause (s) of the event loop after which the process must have been stopped, or the machine have slept."""


def may_have_been_executed(delivery: Delivery) -> bool:
    """Return whether an owner may have had this tool call before: RabbitMQ or a placer delivers it a second time."""
    return delivery.redelivered or headers.LATE in delivery.message.headers


def too_late(request: CallRequest, starting: Sequence[str] = (), *, again: bool = False) -> SessionsError:
    """Return the error for a request whose caller no longer waits: ``DeadlineExceeded``, or ``OutcomeUnknown``.

    ``starting`` lists the services that it waited for. ``again`` says that an earlier copy of it may have reached an
    owner, which may have executed it if it is a tool call.
    """
    named = f"{request.type} {request.name}" if isinstance(request, ToolsCall) else request.type
    if again and isinstance(request, ToolsCall):
        told = "it was delivered again after its caller's timeout; it is unknown whether its first copy was executed"
        return OutcomeUnknown(f"{named}: {told}")
    why = f", and the server of {' and '.join(starting)} was still starting" if starting else ""
    return DeadlineExceeded(f"{named}: waited longer than its caller's timeout{why}; it was not executed")


def check_deadline(delivery: Delivery, request: CallRequest) -> None:
    """Check that the caller of a request that has no owner still waits, if the request says for how long.

    Raises:
        DeadlineExceeded: the caller no longer waits.
        OutcomeUnknown: the same for a tool call that was sent again. Its first copy may have reached an owner that has
            gone since.
    """
    if deadline_of(delivery, math.inf) <= time.monotonic():
        raise too_late(request, again=may_have_been_executed(delivery) or headers.RESENT in delivery.message.headers)


class Heartbeat:
    """Notices when this process was suspended, so that messages from that time do not count as recent."""

    def __init__(self) -> None:
        self._beat_at = time.monotonic()
        self._stalled_from = 0.0
        self._stalled_until = 0.0

    async def run(self) -> None:
        """Watch for suspensions of this process until cancelled."""
        while True:
            self._beat_at = time.monotonic()
            await asyncio.sleep(BEAT)
            now = time.monotonic()
            if now - self._beat_at > STALLED:
                self._stalled_from, self._stalled_until = self._beat_at, now

    def arrival(self, received_at: float) -> float:
        """Return the earliest time at which a message received at ``received_at`` may have reached this machine."""
        if received_at - self._beat_at > STALLED:
            return self._beat_at  # just woken: the beat itself has not noticed yet
        if 0 <= received_at - self._stalled_until < STALLED:
            return self._stalled_from
        return received_at


def deadline_of(delivery: Delivery, timeout: float, heartbeat: Heartbeat | None = None) -> float:
    """Return when the caller of a request stops waiting, on the monotonic clock."""
    arrived = delivery.received_at if heartbeat is None else heartbeat.arrival(delivery.received_at)
    moments = [arrived + timeout]
    message = delivery.message
    if message.expiration is not None:
        moments.append(arrived + message.expiration / 1000)
    if (until := message.headers.get(headers.DEADLINE)) is not None:
        moments.append(time.monotonic() + float(until) / 1000 - time.time())
    return min(moments)
