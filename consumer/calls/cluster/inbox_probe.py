"""Proves that this worker can be given a call, with a message that it sends to itself through its inbox.

An open socket proves nothing: it looks the same if the broker has forgotten the consumer, or if the inbox has no
leader. One message a minute is a full proof. In between, the worker asks the broker how many consumers its inbox has.
This sends no message and detects both faults within seconds. A suspected fault is then checked with a message at once.
A frozen broker does not answer, although its sockets stay open. So the worker counts as unhealthy while an answer is
overdue.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import structlog

from consumer.broker.errors import BrokerError
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from schemas.internal import Probe

log = structlog.get_logger(__name__)

PROBE = Probe.type
"""The type of a probe. Only its sender uses it."""

EVERY = 10.0
"""How often (s) the worker checks its inbox."""

PROBE_EVERY = 60.0
"""How often (s) it sends a probe if no check finds a fault."""

ANSWER_WITHIN = 5.0
"""How long (s) the worker may wait for an answer and still count as healthy."""

PROBE_TIMEOUT = 10.0
"""How long (s) a probe may take after the broker has it. Normally it takes milliseconds."""


@dataclass(slots=True)
class _Question:
    """A question to the broker: when it was asked, and whether the answer is or was overdue."""

    at: float
    stalled: bool = False


class Liveness:
    """Checks the inbox and sends probes. If one does not return, the worker drops its link and connects anew."""

    def __init__(
        self,
        publisher: Publisher,
        up: asyncio.Event,
        inbox: str,
        restart: Callable[[str], None],
        *,
        answer_within: float = ANSWER_WITHIN,
    ) -> None:
        self._publisher = publisher
        self._up = up  # set while a link is attached, inbox and all
        self._inbox = inbox
        self._restart = restart
        self._answer_within = answer_within
        self._expected = ""
        self._back = asyncio.Event()
        self._lost = asyncio.Event()
        self._proved_at = -math.inf
        self._proved = False
        self._asked_at: float | None = None

    @property
    def healthy(self) -> bool:
        """Whether the last probe returned, the last check found no fault, and no reply is overdue."""
        overdue = self._asked_at is not None and _ticks() - self._asked_at > self._answer_within
        return self._proved and not overdue

    def heard(self, delivery: Delivery) -> None:
        """Take a probe that came through the inbox; the caller settles it."""
        if delivery.message.message_id == self._expected:
            self._back.set()

    def lost(self) -> None:
        """Note that the link is lost. The inbox counts as unproven until a probe returns on the next link."""
        self._proved = False
        self._lost.set()
        self._back.set()  # what was on its way does not come, and says nothing of the next link

    async def run(self, every: float = EVERY, timeout: float = PROBE_TIMEOUT, probe_every: float = PROBE_EVERY) -> None:
        """Check the inbox and send probes until cancelled."""
        while True:
            await self._up.wait()
            self._lost.clear()
            with self._asking() as asked:
                proved = await self._look(probe_every) or await self._probe(timeout)
            self._proved = proved and not self._lost.is_set()
            if asked.stalled and self._proved:  # a wait that an error ends is no answer
                log.warning("liveness.answered", inbox=self._inbox, stalled_s=round(_ticks() - asked.at, 1))
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._lost.wait()

    @contextmanager
    def _asking(self) -> Iterator["_Question"]:
        """Watch a question within this block, and log when its answer is overdue."""
        asked = _Question(_ticks())

        def overdue() -> None:
            asked.stalled = True
            log.warning("liveness.stalled", inbox=self._inbox, waited_s=self._answer_within)

        self._asked_at = asked.at
        timer = asyncio.get_running_loop().call_later(self._answer_within, overdue)
        try:
            yield asked
        finally:
            timer.cancel()
            self._asked_at = None

    async def _look(self, probe_every: float) -> bool:
        """Return whether the check found no fault, and the last probe is recent."""
        if not self._proved or _ticks() - self._proved_at >= probe_every:
            return False
        try:
            return await self._publisher.consumers_of(self._inbox) > 0
        except BrokerError:
            return False

    async def _probe(self, timeout: float) -> bool:
        probe = Message(body=b"{}", type=PROBE, persistent=False)
        self._expected = probe.message_id
        self._back.clear()
        try:
            await self._publisher.publish(probe, "", self._inbox)
            async with asyncio.timeout(timeout):
                await self._back.wait()
        except BrokerError as error:  # no link, or a broker in an alarm: a new link would change nothing
            log.warning("liveness.unknown", error=str(error))
            return False
        except TimeoutError:
            if self._up.is_set() and not self._lost.is_set():
                log.error("liveness.lost", inbox=self._inbox, timeout_s=timeout)
                self._restart(f"a message to ourselves did not come back within {timeout:g} s")
            return False
        if self._lost.is_set():
            return False
        self._proved_at = _ticks()
        return True


def _ticks() -> float:
    return asyncio.get_running_loop().time()
