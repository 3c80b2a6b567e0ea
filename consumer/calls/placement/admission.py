"""Admission: starts wait for a worker with room, first come, first served, and not for long."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from consumer.calls.cluster.membership import Presence
from consumer.calls.placement.strategy import choose, has_any_room
from schemas.errors import Capacity, LimitReached, ServiceSessionLimit
from schemas.ids import ServiceName, WorkerId

Services = tuple[ServiceName, ...]


@dataclass(slots=True, eq=False)
class _Waiter:
    without: Collection[WorkerId]
    turn: asyncio.Future[tuple[WorkerId, int]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Admission:
    """Finds a worker with room, at once or within the caller's wait.

    Starts for the same services wait in one line. A report of a worker checks only the heads of the lines, so even ten
    thousand waiting starts cost it nothing.
    """

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._lines: dict[Services, dict[_Waiter, None]] = {}

    async def admit(
        self, services: Services, *, until: float | None, without: Collection[WorkerId] = ()
    ) -> tuple[WorkerId, int]:
        """Return the chosen worker and the number of the placement, which counts as its load from now on.

        ``until`` is a moment of the event loop's clock. None: the caller waits until there is room.

        Raises:
            ServiceSessionLimit: there is room, but not for one of these services.
            Capacity: there is no room at all.
        """
        line = self._lines.get(services)
        if not line and (worker := self._choose(services, without)) is not None:
            return worker, self._presence.place(worker, services)
        waiter = _Waiter(without)
        self._lines.setdefault(services, {})[waiter] = None
        try:
            async with asyncio.timeout_at(until):
                return await waiter.turn
        except TimeoutError:
            raise self._refusal(services, without) from None
        finally:
            line = self._lines.get(services, {})
            line.pop(waiter, None)
            if not line:
                self._lines.pop(services, None)

    def __len__(self) -> int:
        """Return the number of waiting starts."""
        return sum(map(len, self._lines.values()))

    def look(self) -> None:
        """Give new room to the starts that wait longest."""
        for services, line in self._lines.items():
            while line:
                waiter = next(iter(line))
                worker = None if waiter.turn.done() else self._choose(services, waiter.without)
                if worker is not None:
                    waiter.turn.set_result((worker, self._presence.place(worker, services)))
                elif not waiter.turn.done():
                    break
                del line[waiter]

    def with_room(self, services: Services, without: Collection[WorkerId]) -> list[ServiceName]:
        """Return the services for which some worker has room; each is checked alone."""
        return [service for service in services if self._choose((service,), without) is not None]

    def _choose(self, services: Services, without: Collection[WorkerId]) -> WorkerId | None:
        return choose(self._presence.ready(), services, without)

    def _refusal(self, services: Services, without: Collection[WorkerId]) -> LimitReached:
        if has_any_room(self._presence.ready(), without):
            roomy = self.with_room(services, without)
            full = [service for service in services if service not in roomy]
            names = ", ".join(full or services)
            return ServiceSessionLimit(
                f"every worker has reached its session limit for {names}; try again when some have ended", services=full
            )
        return Capacity("every worker is full; try again when some sessions have ended, or add workers")
