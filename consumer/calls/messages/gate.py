"""The gate checks every message before a handler takes it: its size, and whether its sender may send it.

A body that is too large becomes a dead letter unread, because parsing and translating it would cost too much. So does a
message with too many JSON values, because each value costs as much as many bytes. A recipe combines several messages,
so it has a limit of its own, which the owner observes when it opens sessions. A message whose publisher may not send it
becomes a dead letter too, and the publisher gets an error (``border``).
"""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from consumer.broker.message import Delivery, Handler
from consumer.broker.outcome import Outcome, ToDeadLetters, decided
from consumer.broker.settling import Settler
from consumer.broker.topology import Names
from consumer.calls.messages.border import admitted, is_answerable
from consumer.calls.messages.origin import Origins
from consumer.calls.messages.parsing import refused
from schemas.errors import InvalidMessage, SessionsError
from schemas.internal import MAX_RECIPE, Recipe
from schemas.json_values import MAX_VALUES, has_more_values
from schemas.replies import failed

REASON = "too_large"

Start = Callable[[Coroutine[Any, Any, None], str], object]


class Gate:
    """Checks messages of up to ``max_message`` bytes. ``start`` runs handlers that take time."""

    def __init__(
        self,
        settler: Settler,
        names: Names,
        origins: Origins,
        *,
        max_message: int,
        start: Start,
    ) -> None:
        self._settler = settler
        self._names = names
        self._origins = origins
        self._max_message = max_message
        self._start = start

    def before(self, handler: Handler) -> Handler:
        """Return a handler that checks each delivery and then calls ``handler``."""

        def take(delivery: Delivery) -> None:
            if self._origins.by_worker(delivery):
                delivery = replace(delivery, by_worker=True)
            outcome: Outcome | None = self._too_large(delivery)
            if outcome is None:
                try:
                    let_in = admitted(delivery, self._names)
                except SessionsError as error:
                    outcome = refused(error) if is_answerable(delivery, self._names) else _refused_in_silence(error)
                else:
                    handler(let_in)
                    return
            self._start(self._settler.settle(delivery, decided(outcome)), "gate-refuse")

        return take

    def _too_large(self, delivery: Delivery) -> ToDeadLetters | None:
        size = len(delivery.message.body)
        limit = MAX_RECIPE if delivery.type == Recipe.type else self._max_message
        if size > limit:
            problem = f"the message has {size} bytes, {limit} are allowed (worker.max_message)"
            reply = failed(InvalidMessage(problem, size=size, limit=limit))
        elif not delivery.by_worker and has_more_values(delivery.message.body):
            problem = f"the message has more than {MAX_VALUES} JSON values"
            reply = failed(InvalidMessage(problem, limit=MAX_VALUES))
        else:
            return None
        answered = delivery.queue != self._names.calls and is_answerable(delivery, self._names)
        return ToDeadLetters(REASON, problem, reply if answered else None)


def _refused_in_silence(error: SessionsError) -> ToDeadLetters:
    return ToDeadLetters(error.code.value.lower(), error.message)
