"""The warm pool: gives sessions clients that were started, initialised and listed before a call needs them.

Each client serves one session and is never returned. If none waits, a session starts its own, as without a pool. Such
starts have priority over those that fill the pool.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.service import MCPService
from consumer.processes.warm.starter import Starter
from consumer.processes.warm.warm_clients import WarmClients


class WarmPool:
    """Gives sessions their clients, warm ones if their service has a warm pool. It owns ``starter``.

    ``started`` is called with every client that was started, for a call or ahead of one. ``changed`` is called in the
    loop whenever the number of waiting clients changes. Nothing is started ahead before :meth:`warm_up`.
    """

    def __init__(self, starter: Starter, *, started: Callable[[MCPClient], None], changed: Callable[[], None]) -> None:
        self._starter = starter
        self._started = started
        self._clients: dict[str, WarmClients] = {}
        self._clearing: set[asyncio.Task[None]] = set()
        self._changed = changed
        self._warm = False

    def warm_up(self, services: Iterable[MCPService]) -> None:
        """Start clients of the services with ``warm``, and fork servers. Returns at once."""
        self._warm = True
        for service in services:
            self._provide(service)

    def _provide(self, service: MCPService) -> None:
        if service.enabled:
            self._starter.prepare(service)
        if service.enabled and service.warm is not None and service.warm.max:
            self._clients[service.name] = WarmClients(service, service.warm, self._start_ahead, self._changed)

    def reconfigure(self, before: Mapping[str, MCPService], after: Mapping[str, MCPService]) -> None:
        """Stop the warm clients of changed and removed services, and start those of new ones. Returns at once."""
        different = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        for name in different & self._clients.keys():
            clearing = asyncio.create_task(self._clients.pop(name).close(), name=f"warm-clear-{name}")
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
        """Return how many clients of the service wait for a call."""
        clients = self._clients.get(service_name)
        return len(clients) if clients is not None else 0

    async def take(self, service: MCPService) -> MCPClient:
        """Return a warm client, or start one. The caller owns it."""
        clients = self._clients.get(service.name)
        if clients is None:
            return await self._start(service)
        while (client := clients.take()) is not None:
            if await client.is_known():
                return client
            clients.discard(client)
        loop = asyncio.get_running_loop()
        began = loop.time()
        client = await self._start(service)
        clients.note_start(loop.time() - began)
        return client

    def take_back(self, client: MCPClient) -> bool:
        """Take back an unused client. Return ``False`` if the pool does not need it."""
        clients = self._clients.get(client.service.name)
        return clients is not None and clients.put_back(client)

    async def _start(self, service: MCPService, *, ahead: bool = False) -> MCPClient:
        client = await self._starter.start(service, ahead=ahead)
        self._started(client)
        return client

    async def _start_ahead(self, service: MCPService) -> MCPClient:
        return await self._start(service, ahead=True)

    async def cool_down(self) -> None:
        """Stop the waiting clients, and start no more ahead. Sessions are still served. Idempotent."""
        self._warm = False
        waiting, self._clients = list(self._clients.values()), {}
        await asyncio.gather(*(clients.close() for clients in waiting), *self._clearing)

    async def close(self) -> None:
        """End every client, waiting or in use. Idempotent, bounded, never raises."""
        await asyncio.gather(self.cool_down(), self._starter.close())
