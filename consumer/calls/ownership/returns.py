"""Returns messages for calls that this worker does not own to the placer, with headers that say so."""

from consumer.broker.message import Delivery
from consumer.broker.outcome import Forward
from consumer.broker.topology import Names
from consumer.calls.messages import forwarding
from schemas import headers
from schemas.ids import CallId, WorkerId, routing_key


class Returns:
    """Makes the outcomes for deliveries that this worker returns."""

    def __init__(self, worker_id: WorkerId, names: Names) -> None:
        self._worker_id = worker_id
        self._names = names

    def not_ours(self, delivery: Delivery, call_id: CallId) -> Forward:
        """Return the message: this worker does not own the call, or no longer."""
        return self._returned(delivery, call_id, headers.RETURNED)

    def no_room(self, delivery: Delivery, call_id: CallId) -> Forward:
        """Return the message: there is no room for the sessions that it opens; the placer may know a better place."""
        return self._returned(delivery, call_id, headers.REFUSED)

    def _returned(self, delivery: Delivery, call_id: CallId, mark: str) -> Forward:
        given = delivery.message.headers
        returns = int(given.get(headers.RETURNS, 0)) + 1
        placement = given.get(headers.PLACEMENT) or given.get(headers.BELIEVED) or ""
        marks = {mark: self._worker_id, headers.RETURNS: returns, headers.DISOWNED: placement}
        message = forwarding.onward(delivery.message, marks)
        return Forward(self._names.unowned, routing_key(call_id), message, what="returned")
