"""Whether this worker can still be given a call: proved by a message that it sends to itself, through its inbox.

An open socket proves nothing: a consumer that the broker has forgotten, or an inbox without a leader, looks the same.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from consumer.broker.errors import BrokerError
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from schemas.internal import Probe

log = structlog.get_logger(__name__)

PROBE = Probe.type
"""Only its sender means anything by it."""

EVERY = 10.0
"""How often (s) a probe is sent."""

PATIENCE = 10.0
"""How long (s) one may be on its way, once the broker has it; a healthy one takes milliseconds."""


class Liveness:
    """Sends probes; when one does not come back, the broker's side of the worker is to be started anew."""

    def __init__(self, publisher: Publisher, up: asyncio.Event, inbox: str, restart: Callable[[str], None]) -> None:
        self._publisher = publisher
        self._up = up  # set while a link is attached, inbox and all
        self._inbox = inbox
        self._restart = restart
        self._expected = ""
        self._back = asyncio.Event()
        self._lost = asyncio.Event()
        self.healthy = False
        """Whether the last probe came back."""

    def heard(self, delivery: Delivery) -> None:
        """Take a probe that came through the inbox; the caller settles it."""
        if delivery.message.message_id == self._expected:
            self._back.set()

    def lost(self) -> None:
        """The link is lost: nothing is known until a probe has come back on the next one."""
        self.healthy = False
        self._lost.set()

    async def run(self, every: float = EVERY, patience: float = PATIENCE) -> None:
        """Probe for ever; cancel it to stop."""
        while True:
            await self._up.wait()
            self._lost.clear()
            came_back = await self._probe(patience)
            self.healthy = came_back and not self._lost.is_set()
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._lost.wait()

    async def _probe(self, patience: float) -> bool:
        probe = Message(body=b"{}", type=PROBE, persistent=False)
        self._expected = probe.message_id
        self._back.clear()
        try:
            await self._publisher.confirmed(probe, "", self._inbox)
            async with asyncio.timeout(patience):
                await self._back.wait()
        except BrokerError as error:  # no link, or a broker in an alarm: a new link would change nothing
            log.warning("liveness.unknown", error=str(error))
            return False
        except TimeoutError:
            if self._up.is_set():
                log.error("liveness.lost", inbox=self._inbox, patience_s=patience)
                self._restart(f"a message to ourselves did not come back within {patience:g} s")
            return False
        return True
