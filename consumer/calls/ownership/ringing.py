"""Ringing calls: reserves what an answered call will need, and releases it if nobody answers.

A reservation is local to this worker: neither an event nor a recipe mentions it. If the worker dies, the message that
the call was answered reaches the placer, like any message for a call without an owner, and opens the sessions on
another worker.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from consumer.calls.context import Configured, Starter, TakeBack, ToolProcess
from consumer.calls.owned_call import Ringing
from consumer.calls.wanted import Wanted
from consumer.sessions import Reservation, SessionManager
from schemas.errors import LimitReached
from schemas.ids import ServiceName


class Ringer:
    """Reserves places and processes for calls that ring."""

    def __init__(
        self, sessions: SessionManager[ToolProcess], start: Starter, take_back: TakeBack, configured: Configured
    ) -> None:
        self._configured = configured
        self._sessions = sessions
        self._start = start
        self._take_back = take_back

    def ring(self, wanted: list[Wanted], unanswered: Callable[[], None]) -> Ringing:
        """Reserve a place and a process for each session, as far as there is room.

        ``unanswered`` is called when it has rung for longer than a call does.

        Raises:
            LimitReached: there is room for none of them.
        """
        reserved: dict[ServiceName, Reservation[ToolProcess]] = {}
        refusal: LimitReached | None = None
        for service in [one.service_name for one in wanted]:
            try:
                reserved[service] = self._sessions.reserve(service, partial(self._start, service), self._take_back)
            except LimitReached as error:  # for the others there may be room, and for this one when it is answered
                refusal = error
        if refusal is not None and not reserved:
            raise refusal
        timer = asyncio.get_running_loop().call_later(self._configured.timings.ring_timeout, unanswered)
        return Ringing(wanted, reserved, timer)
