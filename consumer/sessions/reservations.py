"""A reserved place, with a process that is started ahead, for a session that may not be opened."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic

from consumer.sessions.limits import Places
from consumer.sessions.session import P, ProcessExit
from schemas.ids import ServiceName

logger = logging.getLogger(__name__)


class Reservation(Generic[P]):
    """A place and a process, held until they are claimed or given back, or the process dies or fails to start.

    Made by ``SessionManager.reserve``. ``start`` runs in a task of its own, and owns its process until it returns;
    ``unused`` is given a process that no session came to use, ``over`` is called when nothing is held any more.
    """

    def __init__(
        self,
        service_name: ServiceName,
        start: Callable[[], Awaitable[P]],
        places: Places,
        *,
        unused: Callable[[P], None],
        over: Callable[["Reservation[P]"], None],
    ) -> None:
        self.service_name = service_name
        self.kept = False
        """Whether the claimed process is the reserved one, and not the replacement of a dead one."""
        self._start = start
        self._places: Places | None = places
        self._unused = unused
        self._over = over
        self._claimed = self._unwanted = self._taken = False
        places.take(service_name)
        self.starting: asyncio.Task[P] = asyncio.create_task(self._run(), name=f"session-reserve {service_name}")
        self.starting.add_done_callback(self._started)

    def free_place(self) -> None:
        """Release the place, so that the session can take it at once. Idempotent."""
        if self._places is not None:
            self._places.give_back(self.service_name)
            self._places = None
            self._over(self)

    async def claim(self) -> P:
        """Return the process when it has started, for the caller to own. A dead one is replaced.

        Raises what its ``start`` raises. When it is cancelled, ``give_back`` is still to be called.
        """
        self._claimed = True
        if not self.starting.done():
            await asyncio.wait({self.starting})
            self.starting.result()
        process = self._take()
        if process is not None and not process.is_alive:
            self._unused(process)
            process = None
        if process is None:
            return await self._start()
        self.kept = True
        return process

    def give_back(self) -> None:
        """Release the place and the process, unless they have been claimed. Idempotent."""
        self._unwanted = True
        self.free_place()
        self.starting.cancel()
        if (process := self._take()) is not None:
            self._unused(process)

    def _take(self) -> P | None:
        """Return the process once, if it has started."""
        starting = self.starting
        if self._taken or not starting.done() or starting.cancelled() or starting.exception() is not None:
            return None
        self._taken = True
        return starting.result()

    async def _run(self) -> P:
        return await self._start()

    def _started(self, starting: asyncio.Task[P]) -> None:
        if starting.cancelled():
            return
        if (error := starting.exception()) is not None:
            if not self._claimed:  # a session tries again, if one comes
                logger.info("session.reservation_failed", extra={"service": self.service_name}, exc_info=error)
                self.free_place()
        elif self._unwanted:  # it was given back between its start and our hearing of it
            self.give_back()
        elif not self._taken:
            starting.result().on_exit(self._died)

    def _died(self, _exit: ProcessExit) -> None:
        if not self._taken:
            logger.info("session.reservation_died", extra={"service": self.service_name})
            self.give_back()
