"""Passes requests of this process for its own calls directly to their owner, without the broker.

A gateway in the worker's process uses ``SessionClient`` like any other; this module sits between the client and
RabbitMQ. The owner takes a request from here as one from its queue: parsed, on the call's lane, at most once, with its
deadline, its trace and its log line. Messages that change a call's life still go through the broker, which keeps their
order.
"""

import asyncio
import time

from consumer.broker.message import Delivery, LocalRequester, Message
from consumer.broker.topology import Names
from consumer.calls.ownership.owner import Owner
from consumer.client.requester import OnInterim, Outgoing, Requester
from consumer.observability import tracing
from schemas.errors import NoReply
from schemas.ids import routing_key
from schemas.interim import INTERIM
from schemas.replies import REPLY_SUFFIX, Reply, parse_reply
from schemas.requests import DURABLE

QUEUE = "in-process"
"""The name of this way in logs and traces."""


class LocalRequests:
    """A ``Requester`` that uses the owner in this process if it can, and another requester otherwise."""

    def __init__(self, owner: Owner, names: Names, elsewhere: Requester) -> None:
        self._owner = owner
        self._names = names
        self._elsewhere = elsewhere

    async def ask(self, request: Outgoing, on_interim: OnInterim | None = None) -> Reply:
        """Send a request to the call's owner; see ``Requester``."""
        call_id = request.call_id
        if call_id is None or request.type in DURABLE or not self._owner.owns(call_id):
            return await self._elsewhere.ask(request, on_interim)
        asked = _Asked()
        self._owner.take(
            Delivery(
                message=Message(
                    request.body,
                    type=request.type,
                    message_id="",  # nobody delivers it again: without a key of its own its answer is not kept
                    expiration=round(request.reply_timeout * 1000),
                    headers=tracing.carrier(),
                ),
                queue=QUEUE,
                exchange=self._names.requests,
                routing_key=routing_key(call_id),
                redelivered=False,
                received_at=time.monotonic(),
                settle=None,
                local_requester=asked,
            )
        )
        try:
            async with asyncio.timeout(request.reply_timeout):
                reply = await asked.reply(on_interim)
        except TimeoutError:
            raise NoReply(f"no reply to {request.type} within {request.reply_timeout:g} s") from None
        if reply is None:  # the call went to another worker meanwhile
            return await self._elsewhere.ask(request, on_interim)
        return reply


class _Asked(LocalRequester):
    """One running request. Its messages wait here, so that the owner never waits for the requester."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()

    async def hear(self, body: bytes, message_type: str) -> None:
        self._heard.put_nowait((message_type, body))
        await asyncio.sleep(0)  # who asked goes on first: its answer does not wait for our log and our metrics

    def not_here(self) -> None:
        self._heard.put_nowait(None)

    async def reply(self, on_interim: OnInterim | None) -> Reply | None:
        """Return the reply; interim messages go to ``on_interim`` first. None if this worker does not own the call."""
        while (heard := await self._heard.get()) is not None:
            message_type, body = heard
            if message_type.endswith(REPLY_SUFFIX):
                return parse_reply(body)
            model = INTERIM.get(message_type)
            if model is not None and on_interim is not None:
                await on_interim(model.model_validate_json(body))
        return None
