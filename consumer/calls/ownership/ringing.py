"""Calls that ring: what an answered one will get is made ready, and given back when nobody answers.

A reservation is this worker's own affair: neither an event nor a recipe tells of it. Should the worker die, the message
that says that the call was answered reaches the placer, as any of a call that nobody owns, and opens the sessions
elsewhere.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from consumer.calls.context import Context, Starter, TakeBack, ToolProcess
from consumer.calls.wanted import Wanted
from consumer.sessions import Reservation, SessionManager
from schemas.errors import LimitReached
from schemas.ids import ServiceName


class Ringing:
    """One call that rings: the sessions that it gets when it is answered, and what is held for them.

    ``reserved`` may lack a service: for want of room, or because a session has it already.
    """

    def __init__(
        self, wanted: list[Wanted], reserved: dict[ServiceName, Reservation[ToolProcess]], timer: asyncio.TimerHandle
    ) -> None:
        self.wanted = wanted
        self._reserved = reserved
        self._timer = timer

    def reserved(self, service: ServiceName) -> Reservation[ToolProcess] | None:
        """What is held for a session on the service, if anything is; the caller's from now on."""
        return self._reserved.pop(service, None)

    def over(self) -> None:
        """It rings no more: give everything back. Idempotent."""
        self._timer.cancel()
        for reservation in self._reserved.values():
            reservation.give_back()
        self._reserved.clear()


class Ringer:
    """Makes ready for calls that ring."""

    def __init__(
        self, context: Context, sessions: SessionManager[ToolProcess], start: Starter, take_back: TakeBack
    ) -> None:
        self._context = context
        self._sessions = sessions
        self._start = start
        self._take_back = take_back

    def ring(self, wanted: list[Wanted], unanswered: Callable[[], None]) -> Ringing:
        """Hold a place and a process for each session, as far as there is room.

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
        timer = asyncio.get_running_loop().call_later(self._context.timings.ring_timeout, unanswered)
        return Ringing(wanted, reserved, timer)
