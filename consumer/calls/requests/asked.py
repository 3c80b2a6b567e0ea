"""A ``tools.call`` as it was received."""

import time
from dataclasses import dataclass

from consumer.broker.message import Delivery
from consumer.calls.messages.deadlines import too_late
from schemas.requests import ToolsCall


@dataclass(frozen=True, slots=True)
class Asked:
    """A ``tools.call`` with the message that brought it, and the deadline of its caller."""

    request: ToolsCall
    delivery: Delivery
    deadline: float
    """The deadline on the monotonic clock."""

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self.request.idempotency_key or self.delivery.message.message_id

    def check_deadline(self) -> float:
        """Return the seconds that are left.

        Raises:
            DeadlineExceeded: no time is left.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise too_late(self.request)
        return left
