"""The interface below the client: it carries a request to a worker, and its reply back.

``SessionClient`` makes requests, and a ``Requester`` sends them. ``consumer.client.amqp_connection`` sends them over
AMQP. A process that owns calls itself can add a requester that passes their requests to the owner without the broker.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from schemas.ids import CallId
from schemas.interim import Interim
from schemas.replies import Reply

OnInterim = Callable[[Interim], Awaitable[None]]
"""Gets the interim messages: ``tools.progress``, ``tools.pending``, ``input.required``."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it leaves the client.

    ``type`` is its message type and ``body`` its JSON. ``call_id`` addresses it to a call; without one any worker
    answers. ``reply_timeout`` is how long (s) to wait for its reply. The request expires then.
    """

    type: str
    body: bytes
    call_id: CallId | None
    reply_timeout: float


class Requester(Protocol):
    """Sends requests. An implementation sends each at most once, and never repeats one silently."""

    async def ask(self, request: Outgoing, on_interim: OnInterim | None = None) -> Reply:
        """Send a request and return its reply, which may be a worker's error.

        ``on_interim`` is awaited for each message that comes before the reply, one after the other.

        Raises:
            ClientError: there is no reply; its ``executed`` says whether the request may have been executed.
        """
        ...
