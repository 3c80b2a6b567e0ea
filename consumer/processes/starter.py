"""How a session comes by its client: the seam for processes that were started ahead.

:class:`ColdStarter` starts one when it is asked for. A warm pool is another :class:`Starter` around it; a fork server
is another :class:`~consumer.processes.launcher.Launcher` below it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from consumer.processes.client import MCPClient
from consumer.processes.eras import Era
from consumer.processes.launcher import Launcher, LocalLauncher
from consumer.processes.service import MCPService
from schemas.errors import ShuttingDown

CPU_BOUND = 5.0
"""Seconds after which a start is no longer thought to be busy: who hangs must not keep others from starting."""


class Starter(Protocol):
    """Gives sessions their clients."""

    async def start(self, service: MCPService) -> MCPClient:
        """A started client of ``service``, for one session."""

    async def close(self) -> None:
        """End every client that was given out or kept. Idempotent, bounded, never raises."""


class ColdStarter:
    """Starts a process for each session, as many at once as the processors can use (twice their number)."""

    def __init__(self, launcher: Launcher | None = None, *, most_at_once: int | None = None) -> None:
        self._own_launcher = LocalLauncher() if launcher is None else None
        self._launcher: Launcher = launcher if launcher is not None else self._own_launcher or LocalLauncher()
        self._slots = asyncio.Semaphore(most_at_once or 2 * (os.cpu_count() or 1))
        self._eras: dict[tuple[str, ...], Era] = {}
        self._clients: set[MCPClient] = set()
        self._closed = False

    @property
    def clients(self) -> frozenset[MCPClient]:
        """The clients of which something is left: starting, serving or stopping."""
        return frozenset(self._clients)

    async def start(self, service: MCPService) -> MCPClient:
        """Start a client; waiting for a slot does not count towards ``start_timeout``."""
        key = (service.name, *(service.command or [service.url or ""]))
        async with self._slot():
            if self._closed:
                raise ShuttingDown("the worker is leaving")
            # Old servers are not asked again which era they speak: a silent one takes seconds to say nothing.
            known = Era.HANDSHAKE if self._eras.get(key) is Era.HANDSHAKE else None
            client = MCPClient(service, launcher=self._launcher, known_era=known)
            self._clients.add(client)
            try:
                await client.start()
            finally:
                client.add_done_callback(self._clients.discard)
        assert client.era is not None
        self._eras[key] = client.era
        return client

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        await self._slots.acquire()
        freed = False

        def free() -> None:
            nonlocal freed
            if not freed:
                freed = True
                self._slots.release()

        patience = asyncio.get_running_loop().call_later(CPU_BOUND, free)
        try:
            yield
        finally:
            patience.cancel()
            free()

    async def close(self) -> None:
        """Stop all clients at once, then let the launcher clear up."""
        self._closed = True
        await asyncio.gather(*(client.stop() for client in self._clients))
        if self._own_launcher is not None:
            await self._own_launcher.close()
