"""The warm pool: sessions get clients that were started, initialised and listed before they were asked for.

Each client serves one session and is never returned. Where none waits, a session starts its own, as without a pool;
such starts go before those that fill the pool.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from consumer.processes.client.client import MCPClient
from consumer.processes.service import MCPService
from consumer.processes.warm.starter import Starter
from consumer.processes.warm.warm_clients import Shelf


class WarmPool:
    """Gives sessions their clients, from a shelf for each service that wants one; ``starter`` is its own from now on.

    ``started`` is told of every client that was started, for a call or ahead of one. Nothing is started ahead until
    :meth:`warm_up`.
    """

    def __init__(self, starter: Starter, *, started: Callable[[MCPClient], None] = lambda _client: None) -> None:
        self._starter = starter
        self._started = started
        self._shelves: dict[str, Shelf] = {}
        self._clearing: set[asyncio.Task[None]] = set()
        self._changed: Callable[[], None] = lambda: None
        self._warm = False

    def warm_up(self, services: Iterable[MCPService], changed: Callable[[], None] = lambda: None) -> None:
        """Begin to start clients of those services that say ``warm``, and fork servers; returns at once.

        ``changed`` is called in the loop whenever the number of clients that wait changes.
        """
        self._changed, self._warm = changed, True
        for service in services:
            self._provide(service)

    def _provide(self, service: MCPService) -> None:
        if service.enabled:
            self._starter.prepare(service)
        if service.enabled and service.warm is not None and service.warm.max:
            self._shelves[service.name] = Shelf(service, service.warm, self._start_ahead, self._changed)

    def reconfigure(self, before: Mapping[str, MCPService], after: Mapping[str, MCPService]) -> None:
        """Clear the shelves of services that are changed or gone, and fill those of the new ones; returns at once."""
        different = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        for name in different & self._shelves.keys():
            clearing = asyncio.create_task(self._shelves.pop(name).close(), name=f"warm-clear-{name}")
            self._clearing.add(clearing)
            clearing.add_done_callback(self._clearing.discard)
            self._changed()
        left = {service.source for service in after.values() if service.enabled}
        for service in before.values():
            if service.source not in left:
                self._starter.retire(service)
        for name in different & after.keys():
            if self._warm:
                self._provide(after[name])

    def waiting(self, service_name: str) -> int:
        """How many clients of the service wait for a call."""
        shelf = self._shelves.get(service_name)
        return len(shelf) if shelf is not None else 0

    async def take(self, service: MCPService) -> MCPClient:
        """A client that waited, at once, or one that is started now; it is the caller's."""
        shelf = self._shelves.get(service.name)
        if shelf is None:
            return await self._start(service)
        while (client := shelf.take()) is not None:
            if await client.is_known():
                return client
            shelf.discard(client)
        loop = asyncio.get_running_loop()
        began = loop.time()
        client = await self._start(service)
        shelf.note_start(loop.time() - began)
        return client

    def take_back(self, client: MCPClient) -> bool:
        """Put a client that was taken and never used on the shelf; ``False`` when there is no use for it."""
        shelf = self._shelves.get(client.service.name)
        return shelf is not None and shelf.put_back(client)

    async def _start(self, service: MCPService, *, ahead: bool = False) -> MCPClient:
        client = await self._starter.start(service, ahead=ahead)
        self._started(client)
        return client

    async def _start_ahead(self, service: MCPService) -> MCPClient:
        return await self._start(service, ahead=True)

    async def cool_down(self) -> None:
        """Start nothing ahead any more and stop the clients that wait; sessions are served on. Idempotent."""
        self._warm = False
        shelves, self._shelves = list(self._shelves.values()), {}
        await asyncio.gather(*(shelf.close() for shelf in shelves), *self._clearing)

    async def close(self) -> None:
        """End every client that was given out or waits. Idempotent, bounded, never raises."""
        await asyncio.gather(self.cool_down(), self._starter.close())
