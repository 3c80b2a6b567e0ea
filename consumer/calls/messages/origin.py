"""Tells whether a worker published a message.

A worker signs its messages with its RabbitMQ user, and RabbitMQ verifies the signature (``consumer.broker.signature``).
The users of workers are our own, and those that have signed a message to the exchange of the workers, which only
workers may write to. A message without a user counts as published by no worker.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog

from consumer.broker.message import Delivery
from consumer.broker.topology import Names

log = structlog.get_logger(__name__)

MOST_USERS: Final = 16
"""How many users of workers are remembered. Beyond that, the one that was silent longest is forgotten."""


class Origins:
    """Knows the publishers of deliveries. ``own_user`` returns the name that this worker signs with."""

    def __init__(self, names: Names, own_user: Callable[[], str | None]) -> None:
        self._names = names
        self._own_user = own_user
        self._users: OrderedDict[str, None] = OrderedDict()

    def by_worker(self, delivery: Delivery) -> bool:
        """Whether a worker published this."""
        return delivery.user is not None and (delivery.user == self._own_user() or delivery.user in self._users)

    def heard(self, delivery: Delivery) -> bool:
        """Take a message from the workers' own queue. Return whether a worker published it.

        A signed message that came through the workers' exchange is a worker's, and shows which user workers sign with.
        """
        if delivery.user is not None and delivery.exchange == self._names.workers:
            self._learn(delivery.user)
        return self.by_worker(delivery)

    def _learn(self, user: str) -> None:
        if user == self._own_user():
            return
        if user not in self._users:
            log.info("origin.another_user", user=user)
        self._users[user] = None
        self._users.move_to_end(user)
        if len(self._users) > MOST_USERS:
            self._users.popitem(last=False)
