"""Binds calls to the inboxes of workers, and remembers for a while which call was bound where."""

from dataclasses import dataclass
from typing import NamedTuple

from consumer.broker.channel import Channel
from consumer.broker.errors import BrokerUnavailable
from consumer.broker.message import CALL_HEADER, Headers, Message
from consumer.broker.outcome import Forward
from consumer.broker.topology import Binding, Names
from consumer.calls.messages import forwarding
from consumer.concurrency.expiring_dict import ExpiringDict
from schemas import headers
from schemas.ids import CallId, WorkerId, routing_key

REMEMBER = 10.0
"""How long (s) a placement is remembered, for messages that were routed before the binding took effect."""


@dataclass(slots=True, eq=False)
class Term:
    """One term as the placer: from the first unowned message on a channel until that channel is lost."""

    channel: Channel
    is_over: bool = False


class Placement(NamedTuple):
    """The worker whose inbox a call was bound to."""

    owner: WorkerId
    number: int
    """A number that increases with each placement of a placer."""


class Placements:
    """Binds calls to inboxes on the channel of a term. If the broker closes this channel, the placer cannot bind."""

    def __init__(self, worker_id: WorkerId, names: Names) -> None:
        self._worker_id = worker_id
        self._names = names
        self._recent: ExpiringDict[Placement] = ExpiringDict(REMEMBER)
        self._sent_again: ExpiringDict[bool] = ExpiringDict(REMEMBER)

    def clear(self) -> None:
        """Forget all placements: another worker may have placed in the meantime."""
        self._recent.clear()
        self._sent_again.clear()

    def of(self, call_id: CallId) -> Placement | None:
        """Return the recent placement of a call, if it has one."""
        return self._recent.get(call_id)

    def sent_again(self, call_id: CallId) -> None:
        """Note that a message of the call was sent to the sessions exchange again. Later messages wait for it."""
        self._sent_again.set(call_id, True)

    def comes_behind(self, call_id: CallId, given: Headers) -> bool:
        """Return whether a message has to wait for one of the same call that was sent again."""
        if headers.RESENT in given:
            self._sent_again.drop(call_id)
            return False
        return self._sent_again.get(call_id) is not None

    def forget(self, call_id: CallId, owner: WorkerId) -> None:
        """Forget that a call was placed on this worker."""
        placement = self.of(call_id)
        if placement is not None and placement.owner == owner:
            self._recent.drop(call_id)

    def mark(self, number: int) -> str:
        """Return the name of a placement in headers."""
        return f"{self._worker_id}/{number}"

    async def bind(
        self, call_id: CallId, placement: Placement, message: Message, term: Term, marks: Headers
    ) -> Forward:
        """Place a call: bind it to the worker's inbox, and forward the message to this inbox.

        Raises:
            BrokerUnavailable: the term is over, or ends meanwhile.
        """
        await term.channel.bind(self._binding(call_id, placement.owner))
        if term.is_over:
            raise BrokerUnavailable("this worker is no longer the placer")
        self._recent.set(call_id, placement)
        forward = self.to_inbox(placement.owner, call_id, message, {})
        placed = forward.message.with_headers({headers.PLACEMENT: self.mark(placement.number)} | marks)
        return Forward(forward.exchange, forward.routing_key, placed, what="placed")

    async def unbind(self, call_id: CallId, worker: WorkerId, term: Term) -> None:
        """Remove the bindings of a call to a worker."""
        await term.channel.unbind(self._binding(call_id, worker))

    def to_inbox(self, worker: WorkerId, call_id: CallId, message: Message, marks: Headers) -> Forward:
        """Forward a message to a worker's inbox."""
        onward = forwarding.onward(message, {CALL_HEADER: call_id, **marks})
        return Forward("", self._names.inbox(worker), onward)

    def _binding(self, call_id: CallId, worker: WorkerId) -> Binding:
        return Binding(self._names.sessions, self._names.inbox(worker), routing_key(call_id))
