"""Messages as the simulated broker keeps them, and what it writes into them when their queue gives them up."""

from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any

from tests.simulation.broker.wire import Properties


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """A message as it was routed: nobody changes it any more."""

    properties: Properties
    body: bytes
    exchange: str
    routing_key: str
    returns: int = 0
    """How often it came back to the queue that gave it up; RabbitMQ goes on counting from 4.3 on."""

    @property
    def headers(self) -> dict[str, Any]:
        return self.properties.headers or {}


@dataclass(slots=True, eq=False)
class Stored:
    """A message in one queue."""

    message: Published
    number: int
    stored_at: float
    expires_at: float = inf
    returns: int = 0
    redelivered: bool = False


def died(
    stored: Stored, queue: str, reason: str, exchange: str, routing_key: str, now: float, version: tuple[int, ...]
) -> Published:
    """The message as its queue publishes it again, with one death more (RabbitMQ, dead letter exchanges)."""
    message = stored.message
    headers = dict(message.headers)
    deaths = [dict(death) for death in headers.get("x-death") or () if isinstance(death, dict)]
    known = next((one for one in deaths if (one["queue"], one["reason"]) == (queue, reason)), None)
    if known is not None:
        deaths.remove(known)
        known["count"] += 1
    else:
        known = {
            "count": 1,
            "reason": reason,
            "queue": queue,
            "time": datetime.fromtimestamp(int(now), UTC),
            "exchange": message.exchange,
            "routing-keys": [message.routing_key],
        }
        if message.properties.expiration:
            known["original-expiration"] = message.properties.expiration
    # Until 3.13 each death turns the order of the others round.
    headers["x-death"] = [known, *(deaths if version >= (3, 13) else reversed(deaths))]
    headers.setdefault("x-first-death-reason", reason)
    headers.setdefault("x-first-death-queue", queue)
    headers.setdefault("x-first-death-exchange", message.exchange)
    headers.pop("x-delivery-count", None)
    returns = stored.returns + (reason == "rejected") if version >= (4, 3) else 0
    properties = message.properties.changed(headers=headers, expiration=None)
    return Published(properties, message.body, exchange, routing_key, returns)


def is_cycle(message: Published, queue: str) -> bool:
    """Whether a dead letter has come round to a queue that it was in before, without anybody rejecting it."""
    reasons = []
    for death in message.headers.get("x-death") or ():
        reasons.append(death["reason"])
        if death["queue"] == queue:
            return "rejected" not in reasons
    return False
