"""The gate before everything that takes messages from others: what is too large is parked unread.

Neither parsed nor translated, because that is what a large body costs. A recipe holds what several messages brought,
so it has a bound of its own, which the owner keeps when it opens sessions.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from consumer.broker.message import Delivery, Handler
from consumer.broker.outcome import Outcome, Park, decided
from consumer.broker.settling import Settler
from schemas.errors import InvalidMessage
from schemas.internal import MAX_RECIPE, Recipe
from schemas.replies import failed

REASON = "too_large"


class Gate:
    """Lets bodies of up to ``max_message`` bytes pass; ``start`` runs what becomes of the others."""

    def __init__(
        self, settler: Settler, max_message: int, start: Callable[[Coroutine[Any, Any, None], str], object]
    ) -> None:
        self._settler = settler
        self._max_message = max_message
        self._start = start

    def before(self, handler: Handler) -> Handler:
        """``handler``, behind the gate."""

        def take(delivery: Delivery) -> None:
            refused = self._refused(delivery)
            if refused is None:
                handler(delivery)
            else:
                self._start(self._settler.settle(delivery, decided(refused)), "gate-refuse")

        return take

    def _refused(self, delivery: Delivery) -> Outcome | None:
        size = len(delivery.message.body)
        limit = MAX_RECIPE if delivery.type == Recipe.type else self._max_message
        if size <= limit:
            return None
        problem = f"the message has {size} bytes, {limit} are allowed (worker.max_message)"
        return Park(REASON, problem, failed(InvalidMessage(problem, size=size, limit=limit)))
