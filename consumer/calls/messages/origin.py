"""Tells whether a worker or somebody else published a message.

A worker signs what it publishes with its user of the broker, and RabbitMQ verifies the signature
(``consumer.broker.signature``). The users of workers are our own, and those that have signed a message to the exchange
of the workers, which only workers may write to.

Older workers do not sign. As long as the presence of one of them is heard there, and as long after as what it left
behind may be on its way, what bears no name is believed as well: that is how workers are upgraded one by one. No other
message without a name changes what is believed. One that was killed before anybody heard it has left its inbox, which
only a worker can have made; its name tells that its worker did not sign.
"""

import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog

from consumer.broker.message import Delivery
from consumer.broker.topology import Names
from schemas.ids import WorkerId
from schemas.internal import PresenceReport, PresenceRequest, Recipe

log = structlog.get_logger(__name__)

UNSIGNED_FOR: Final = 600.0
"""How long (s) unsigned messages are believed after a worker that does not sign was heard: its recipes may travel."""

MOST_USERS: Final = 16
"""How many users of workers are known; of more, the one that was not heard for longest is forgotten."""

_OLDER: Final = re.compile(r".+-\d+-[0-9a-f]{6}")
"""The id that a worker made for itself before workers signed. Those that sign have eight letters at its end."""


class Origins:
    """Knows by whom a delivery was published; ``own_user`` tells whose name this worker signs with."""

    def __init__(
        self, names: Names, own_user: Callable[[], str | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._names = names
        self._clock = clock
        self._own_user = own_user
        self._users: OrderedDict[str, None] = OrderedDict()
        self._unsigned_until = -math.inf

    @property
    def believes_unsigned(self) -> bool:
        """Whether what bears no name may be a worker's."""
        return self._clock() < self._unsigned_until

    def left_by(self, delivery: Delivery) -> WorkerId | None:
        """The older worker that would have left this recipe, if it is one without a name out of a dead worker's inbox.

        Only the broker publishes there, and keeps the key under which the recipe was put into the inbox. A call may be
        named like an inbox, so whether that inbox exists must be asked of the broker.
        """
        if delivery.user is not None or delivery.type != Recipe.type or delivery.exchange != self._names.unowned:
            return None
        worker = self._names.worker_of_inbox(delivery.routing_key)
        return worker if worker is not None and _OLDER.fullmatch(worker) else None

    def older_was_there(self) -> None:
        """A worker that does not sign is there, or was a moment ago."""
        if not self.believes_unsigned:
            hint = (
                "a worker of an older version does not sign its messages; until it is upgraded, any publisher can "
                "pretend to be a worker"
            )
            log.warning("origin.unsigned_worker", hint=hint)
        self._unsigned_until = self._clock() + UNSIGNED_FOR

    def by_worker(self, delivery: Delivery) -> bool:
        """Whether a worker published this."""
        if delivery.user is None:
            return self.believes_unsigned
        return delivery.user == self._own_user() or delivery.user in self._users

    def heard(self, delivery: Delivery) -> bool:
        """A message came to the workers' own queue; returns whether it is to be read.

        What came through the exchange of the workers with a name is a worker's, and tells how they sign. Of what has
        none, a presence is read, before its worker is believed (``heard_presence``), and the request for presences,
        which is the first message of a worker.
        """
        if delivery.exchange != self._names.workers:
            return self.by_worker(delivery)
        if delivery.user is None:
            return self.believes_unsigned or delivery.type in (PresenceReport.type, PresenceRequest.type)
        if delivery.user != self._own_user():
            if delivery.user not in self._users:
                log.info("origin.another_user", user=delivery.user)
            self._users[delivery.user] = None
            self._users.move_to_end(delivery.user)
            if len(self._users) > MOST_USERS:
                self._users.popitem(last=False)
        return True

    def heard_presence(self, delivery: Delivery) -> None:
        """This presence of a worker is readable; without a name, it is that of a worker that does not sign."""
        if delivery.user is None and delivery.exchange == self._names.workers:
            self.older_was_there()
