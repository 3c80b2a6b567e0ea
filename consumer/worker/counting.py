"""Counters that begin at zero, because Prometheus sees no increase of a counter that appears with its first count."""

from collections.abc import Iterable

from consumer.broker.dead_letter import WORKER_REASONS
from consumer.observability import metrics
from schemas.errors import ErrorCode
from schemas.events import EndReason, SessionEventType

REFUSALS = (
    ErrorCode.CAPACITY,
    ErrorCode.DEADLINE_EXCEEDED,
    ErrorCode.INTERNAL,
    ErrorCode.SERVICE_DISABLED,
    ErrorCode.SERVICE_NOT_FOUND,
    ErrorCode.SERVICE_SESSION_LIMIT,
    ErrorCode.SESSION_EXISTS,
    ErrorCode.SESSION_LIMIT,
    ErrorCode.SHUTTING_DOWN,
    ErrorCode.START_FAILED,
    ErrorCode.START_TIMEOUT,
)
"""The error codes with which a session is not opened."""


def begin_counting(services: Iterable[str]) -> None:
    """Set the counters of alerts to zero, for these services and each known reason, unless they already count."""
    for service in services:
        metrics.of(metrics.LOST, service)
        for reason in EndReason:
            if reason.event_type is not SessionEventType.LOST:
                metrics.of(metrics.ENDED, service, reason.value)
    for code in REFUSALS:
        metrics.of(metrics.REJECTED, code.value.lower())
    for word in WORKER_REASONS:
        metrics.of(metrics.DEAD_LETTERS, word)
        metrics.of(metrics.DEAD_LETTER_BYTES, word)
